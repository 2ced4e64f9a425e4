//! Groups: who is here, what is kept for them, and what is read again.

use prost::Message;
use serde_json::json;
use tidegate::proto::{BusItem, BusMessage, Membership, SyncReq, bus_item::Item};

use crate::common::payload::delivered;
use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::scrape::{Metrics, Series};

const GROUPS: Series = "tidegate_groups";
const RELOADS: Series = "tidegate_group_reloads_total";
const FORGOTTEN: Series = "tidegate_group_interests_forgotten_total";
const OUTDATED: Series = "tidegate_dropped_total{reason=group_outdated}";
const CHANGES_FULL: Series = "tidegate_dropped_total{reason=membership_queue_full}";
const HINT_HOT: Series = "tidegate_conversation_hints_total{cause=hot}";
const TAIL: Series = "tidegate_pulls_total{source=tail}";
pub(crate) const MEMBERS: &[Series] = &[GROUPS, RELOADS, FORGOTTEN, OUTDATED, CHANGES_FULL];
pub(crate) const BUSY: &[Series] = &[HINT_HOT, TAIL];

const TEAM: &str = "g:team";

async fn make(gateway: &Gateway, members: &[i64]) {
    let group = json!({"id": TEAM, "members": members});
    gateway.http().post("/v1/conversations", &group).await.success();
}

#[tokio::test]
async fn a_busy_group_is_pulled_from_what_is_kept() {
    let gateway = Gateway::start(Options::new().env("TIDEGATE_GROUPS_PUSH_RATE", "1")).await;
    let metrics = Metrics::of(&gateway).await;
    make(&gateway, &[42, 43]).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let mut bob = Client::connect(&gateway, 43, "phone").await;
    metrics.becomes(GROUPS, 1.0).await;
    for n in 0..20 {
        alice.store_text(TEAM, &format!("m-{n}"), "x").await;
    }
    metrics.moved(&[HINT_HOT]).await;
    let hint = bob.expect_hint(TEAM).await;
    let request = SyncReq { conversation_id: TEAM.to_owned(), from_seq: hint.top_seq, ..SyncReq::default() };
    bob.sync(request).await;
    metrics.moved(&[TAIL]).await;
    metrics.are_conserved().await;
}

#[tokio::test]
async fn what_is_known_of_a_group_is_read_again_when_it_is_old() {
    let redis = Redis::start().await;
    let (a, mut b) = tokio::join!(
        Gateway::start(Options::cluster(&redis, "gw-a")),
        Gateway::start(Options::cluster(&redis, "gw-1"))
    );
    let (at_a, at_b) = (Metrics::of(&a).await, Metrics::of(&b).await);
    make(&a, &[42, 43, 44]).await;
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    alice.store_text(TEAM, "m-1", "x").await;
    bob.expect_push().await;
    let meta = format!("{{c:{TEAM}}}:meta");
    let _: i64 = redis.query(&["HINCRBY", &meta, "mver", "1"]).await;
    bob.send(delivered(TEAM, 1)).await;
    at_b.moved(&[OUTDATED]).await;
    let _: i64 = redis.query(&["HINCRBY", &meta, "mver", "1"]).await;
    alice.store_text(TEAM, "m-2", "x").await;
    bob.expect_push().await;
    at_b.moved(&[RELOADS]).await;

    // More changes at once than are kept.
    let change = Membership { conversation_id: TEAM.to_owned(), user_ids: vec![44], ..Membership::default() };
    let forged = BusMessage {
        version: 1,
        source_gateway: "gw-x".to_owned(),
        source_epoch: 7,
        destination_gateway: "gw-1".to_owned(),
        destination_epoch: b.epoch,
        counter: 1,
        sent_at_micros: 0,
        items: vec![BusItem { item: Some(Item::Membership(change)) }; 20_000],
    };
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let publish = redis::cmd("PUBLISH").arg("10065").arg(forged.encode_to_vec()).to_owned();
    let _: i64 = publish.query_async(&mut connection).await.unwrap();
    at_b.moved(&[CHANGES_FULL]).await;

    // A gateway that has died is not published to for ever.
    b.kill();
    let _: i64 = redis.query(&["DEL", "gateway:gw-1"]).await;
    let _: i64 = redis.query(&["ZREM", "gateways", "gw-1"]).await;
    eventually("its interest is taken back", secs(20), || async {
        let sent =
            json!({"conversationId": TEAM, "clientMsgId": format!("m-{}", rand()), "textContent": "x"});
        a.http().post("/v1/messages", &sent).await.success();
        (at_a.grown(FORGOTTEN).await > 0.0).then_some(())
    })
    .await;
    let left: bool = redis.query(&["HEXISTS", &format!("{{c:{TEAM}}}:gateways"), "gw-1"]).await;
    assert!(!left);
}

fn rand() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
}
