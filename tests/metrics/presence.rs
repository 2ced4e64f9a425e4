//! Who is online, who is told of it, and who is not.

use serde_json::json;
use tidegate::proto::PresenceReq;
use tidegate::proto::envelope::Payload;

use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::scrape::{Metrics, Series};

const USERS: Series = "tidegate_presence_users";
const WATCHED: Series = "tidegate_presence_watched_users";
const HEARTBEATS: Series = "tidegate_presence_heartbeats_total";
const BY_CONNECTION: Series = "tidegate_presence_sightings_total{way=connection}";
const BY_HTTP: Series = "tidegate_presence_sightings_total{way=http}";
const FLUSHES: Series = "tidegate_presence_flush_duration_seconds_count";
const ERRORS: Series = "tidegate_presence_errors_total";
const CAME: Series = "tidegate_presence_changes_total{state=online}";
const WENT: Series = "tidegate_presence_changes_total{state=offline}";
const EVENTS: Series = "tidegate_presence_events_total";
const REFUSED: Series = "tidegate_presence_refused_total";
const SLOW: Series = "tidegate_presence_dropped_total{reason=slow_reader}";
pub(crate) const GAUGES: &[Series] = &[USERS, WATCHED];
pub(crate) const ONLINE: &[Series] = &[HEARTBEATS, BY_CONNECTION, BY_HTTP, FLUSHES, ERRORS, CAME, WENT];
pub(crate) const WATCHING: &[Series] = &[EVENTS, REFUSED, SLOW];

const OPEN: &str = "[presence]\ngrace = \"0s\"\nvisibility = \"all\"\n";

fn watch(users: &[i64]) -> Payload {
    Payload::Presence(PresenceReq { user_ids: users.to_vec(), watch: true })
}

#[tokio::test]
async fn heartbeats_and_changes_are_counted() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").config(OPEN)).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    gateway.http().post("/v1/presence/heartbeat", &json!({ "userId": 43 })).await.success();
    metrics.moved(&[HEARTBEATS, BY_CONNECTION, BY_HTTP, FLUSHES, CAME]).await;
    metrics.becomes(USERS, 2.0).await;
    phone.send(watch(&[43, 44])).await;
    metrics.becomes(WATCHED, 2.0).await;
    phone.send(watch(&[])).await;
    metrics.moved(&[REFUSED]).await;
    let other = Client::connect(&gateway, 44, "phone").await;
    metrics.moved(&[EVENTS]).await;
    other.close().await;
    metrics.moved(&[WENT]).await;
    redis.pause();
    metrics.moved(&[ERRORS]).await;
    redis.resume();
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_later() {
    let gateway = Gateway::start(Options::new().config(OPEN)).await;
    let metrics = Metrics::of(&gateway).await;
    let mut watcher = Client::open_narrow(&gateway, "/ws?user=42&device=phone").await;
    watcher.expect_ready().await;
    watcher.send(watch(&[43])).await;
    metrics.becomes(WATCHED, 1.0).await;
    let full = "tidegate_dropped_total{reason=ephemeral_slow_reader}";
    // Less and less fits, and then nothing.
    for size in [60_000, 3_000, 200, 1_usize] {
        let load = json!({ "target": { "users": [42] }, "topic": "t", "payload": "x".repeat(size) });
        let before = metrics.grown(full).await;
        eventually("there is no room", secs(30), || async {
            gateway.http().post("/v1/push", &load).await.success();
            (metrics.grown(full).await > before).then_some(())
        })
        .await;
    }
    let other = Client::connect(&gateway, 43, "phone").await;
    metrics.moved(&[SLOW]).await;
    let online = |payload: &Payload| match payload {
        Payload::PresenceEvent(event) if event.online => Some(event.user_id),
        _ => None,
    };
    assert_eq!(watcher.expect("the event", online).await, 43);
    drop(other);
}
