//! Redis away, hanging and tampered with.

use crate::common::payload::{frame, typing};
use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::scrape::{Metrics, Series};
use tidegate::proto::{ErrorCode, KickReason};

pub(crate) const WELL: &[Series] = &[
    "tidegate_redis_commands_total",
    "tidegate_route_operations_total{operation=bind,result=ok}",
    "tidegate_route_operations_total{operation=refresh,result=ok}",
    "tidegate_route_operations_total{operation=query,result=ok}",
    "tidegate_route_operations_total{operation=unbind,result=ok}",
    "tidegate_route_operation_duration_seconds_count{operation=bind}",
    "tidegate_route_operation_duration_seconds_count{operation=refresh}",
    "tidegate_route_operation_duration_seconds_count{operation=query}",
    "tidegate_route_operation_duration_seconds_count{operation=unbind}",
];
pub(crate) const ILL: &[Series] = &[
    "tidegate_redis_errors_total",
    "tidegate_route_operations_total{operation=bind,result=error}",
    "tidegate_route_operations_total{operation=refresh,result=error}",
    "tidegate_route_operations_total{operation=query,result=error}",
    "tidegate_route_operations_total{operation=unbind,result=error}",
    "tidegate_deliveries_total{result=lookup_failed}",
];
pub(crate) const BACK: &[Series] = &["tidegate_redis_reconnects_total", "tidegate_route_rebinds_total"];
const UP: Series = "tidegate_redis_up";
pub(crate) const GAUGES: &[Series] = &[UP];
pub(crate) const LEASE: &[Series] = &["tidegate_lease_lost_total", "tidegate_route_rebinds_total"];
const REFRESH_REFUSED: Series = "tidegate_route_operations_total{operation=refresh,result=refused}";
const UNBIND_REFUSED: Series = "tidegate_route_operations_total{operation=unbind,result=refused}";
pub(crate) const RAISED: &[Series] = &["tidegate_conversation_epochs_raised_total"];
pub(crate) const UNCONFIRMED: &[Series] = &["tidegate_store_unconfirmed_total"];
pub(crate) const STOLEN: &[Series] = &[REFRESH_REFUSED, UNBIND_REFUSED];
pub(crate) const HANGING: &[Series] =
    &["tidegate_dropped_total{reason=relay_queue_full}", "tidegate_dropped_total{reason=report_queue_full}"];

const CHAT: &str = "p2p:42:43";

#[tokio::test]
async fn an_outage_shows_and_so_does_its_end() {
    let redis = Redis::start().await;
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_ROUTE_REFRESH", "1s");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    metrics.becomes(UP, 1.0).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    Client::connect(&gateway, 46, "phone").await.close().await;
    let leaving = Client::connect(&gateway, 44, "phone").await;
    phone.store_text(CHAT, "m-1", "x").await;
    for _ in 0..8 {
        phone.beat().await;
        tokio::time::sleep(secs(1)).await;
    }
    metrics.moved(WELL).await;

    redis.pause();
    metrics.becomes(UP, 0.0).await;
    leaving.close().await;
    phone.send(typing(CHAT, true)).await;
    friend
        .expect("Typing", |p| matches!(p, tidegate::proto::envelope::Payload::Typing(_)).then_some(()))
        .await;
    let _late = Client::connect(&gateway, 45, "phone").await;
    metrics.moved(ILL).await;

    redis.resume();
    metrics.becomes(UP, 1.0).await;
    metrics.moved_within(BACK, secs(20)).await;
    metrics.are_conserved().await;
}

#[tokio::test]
async fn a_lease_that_is_gone_is_counted_and_routes_are_bound_again() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let gone: i64 = redis.query(&["DEL", "gateway:gw-a", "route:42", "{route:42}:devices"]).await;
    assert_eq!(gone, 3);
    metrics.moved(LEASE).await;
    let route: String = redis.query(&["GET", "route:42"]).await;
    assert_eq!(route, "gw-a");
    phone.beat().await;
}

#[tokio::test]
async fn a_history_that_may_have_lost_messages_is_counted() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let before = phone.store_text(CHAT, "m-1", "x").await;
    let _: i64 = redis.query(&["HSET", "{c:p2p:42:43}:meta", "replid", "of-another-server"]).await;
    let after = phone.store_text(CHAT, "m-2", "y").await;
    assert!(after.seq == before.seq + 1 && after.epoch > before.epoch);
    metrics.moved(RAISED).await;
}

#[tokio::test]
async fn sends_below_the_configured_level_are_counted() {
    let redis = Redis::start().await;
    for (setting, value) in [("appendonly", "yes"), ("appendfsync", "always")] {
        let _: String = redis.query(&["CONFIG", "SET", setting, value]).await;
    }
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_STORE_LEVEL", "2");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    assert_eq!(phone.store_text(CHAT, "m-1", "x").await.level, 2);
    let _: String = redis.query(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    metrics.becomes_within("tidegate_ack_level", 1.0, secs(20)).await;
    phone.send_text(CHAT, "m-2", "y").await;
    assert_eq!(phone.expect_failed("m-2").await, ErrorCode::RetryLater);
    metrics.moved(UNCONFIRMED).await;
    let ready = gateway.http().get("/readyz").await;
    let body = String::from_utf8(ready.body.to_vec()).unwrap();
    assert!(
        ready.status == 503 && body.contains("store.level 2 is configured, this Redis confirms 1"),
        "{body}"
    );

    let _: String = redis.query(&["CONFIG", "SET", "appendfsync", "always"]).await;
    metrics.becomes("tidegate_ack_level", 2.0).await;
    // Within the second after a refusal another one may come.
    assert_eq!(phone.insist(CHAT, "m-3", "z").await.level, 2);
}

#[tokio::test]
async fn a_route_that_is_anothers_is_refused() {
    let redis = Redis::start().await;
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_ROUTE_REFRESH", "1s");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let seat = format!("gw-x|1|1|9000000000000000|{}", crate::common::token::now() + 120);
    let _: i64 = redis.query(&["HSET", "{route:42}:devices", "phone", &seat]).await;
    phone.beat().await;
    phone.expect_kick(KickReason::Replaced).await;
    metrics.moved(&[REFRESH_REFUSED]).await;
    eventually("an unbind finds nothing of its own", secs(20), || async {
        let friend = Client::connect(&gateway, 43, "phone").await;
        let _: i64 = redis.query(&["DEL", "{route:43}:devices"]).await;
        friend.close().await;
        (metrics.grown(UNBIND_REFUSED).await > 0.0).then_some(())
    })
    .await;
    metrics.moved(STOLEN).await;
}

#[tokio::test]
async fn what_relays_cannot_hold_is_dropped_and_counted() {
    let redis = Redis::start().await;
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_REDIS_TIMEOUT", "10s");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    redis.pause();
    for _ in 0..12 {
        phone.send_raw(frame(typing(CHAT, true)).repeat(500)).await;
    }
    let received = tidegate::proto::envelope::Payload::Ack(tidegate::proto::Ack {
        conversation_id: CHAT.to_owned(),
        seq: 1,
        status: tidegate::proto::AckStatus::Delivered.into(),
        ..Default::default()
    });
    for _ in 0..20 {
        phone.send_raw(frame(received.clone()).repeat(1_000)).await;
    }
    metrics.moved(HANGING).await;
    phone.beat().await;
    redis.resume();
}
