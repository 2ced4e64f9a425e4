//! Sends and what became of them: the first law of conservation.

use tidegate::proto::ErrorCode;

use crate::common::payload::{frame, text};
use crate::common::{Client, Gateway, Options, Redis, SmallDisk, secs};
use crate::scrape::{Metrics, Series};
use tidegate::proto::envelope::Payload;

pub(crate) const MESSAGES: &[Series] = &[
    "tidegate_messages_received_total",
    "tidegate_messages_stored_total",
    "tidegate_messages_duplicate_total",
    "tidegate_store_append_duration_seconds_count",
    "tidegate_delivery_duration_seconds_count",
    "tidegate_deliveries_total{result=local}",
    "tidegate_deliveries_total{result=offline}",
];
pub(crate) const EMBEDDED: &[Series] = &[
    "tidegate_store_commits_total",
    "tidegate_store_commit_messages_total",
    "tidegate_store_commit_duration_seconds_count",
];
pub(crate) const DISK: &[Series] = &["tidegate_store_disk_errors_total"];
const INVALID: Series = "tidegate_messages_refused_total{reason=invalid}";
const FORBIDDEN: Series = "tidegate_messages_refused_total{reason=forbidden}";
const RETRY_LATER: Series = "tidegate_messages_refused_total{reason=retry_later}";
const QUEUE_FULL: Series = "tidegate_messages_refused_total{reason=queue_full}";
const INTERNAL: Series = "tidegate_messages_refused_total{reason=internal}";
pub(crate) const REFUSED: &[Series] = &[INVALID, FORBIDDEN, RETRY_LATER, QUEUE_FULL, INTERNAL];
const IN_FLIGHT: Series = "tidegate_messages_in_flight";
const LEVEL: Series = "tidegate_ack_level";
pub(crate) const GAUGES: &[Series] = &[IN_FLIGHT, LEVEL];

const CHAT: &str = "p2p:42:43";

#[tokio::test]
async fn every_send_is_stored_or_known_or_refused() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    for n in 0..3 {
        phone.store_text(CHAT, &format!("m-{n}"), "x").await;
        friend.expect_push().await;
    }
    assert!(phone.store_text(CHAT, "m-1", "x").await.duplicate);
    phone.send_text(CHAT, "m-1", "y").await;
    assert_eq!(phone.expect_failed("m-1").await, ErrorCode::Invalid);
    phone.send_text("nonsense", "m-4", "x").await;
    phone.expect_failed("m-4").await;
    phone.send_text("p2p:43:44", "m-5", "x").await;
    phone.expect_failed("m-5").await;
    phone.store_text("p2p:42:99", "m-6", "nobody there").await;
    metrics.moved(MESSAGES).await;
    metrics.moved(EMBEDDED).await;
    assert_eq!(metrics.grown("tidegate_store_commit_messages_total").await, 4.0);
    metrics.moved(&[INVALID, FORBIDDEN]).await;
    for (series, count) in [
        ("tidegate_messages_received_total", 8.0),
        ("tidegate_messages_stored_total", 4.0),
        ("tidegate_messages_duplicate_total", 1.0),
        (INVALID, 2.0),
        (FORBIDDEN, 1.0),
        ("tidegate_deliveries_total{result=local}", 3.0),
        ("tidegate_copies_enqueued_total", 3.0),
    ] {
        assert_eq!(metrics.grown(series).await, count, "{series}");
    }
    metrics.are_conserved().await;
}

#[tokio::test]
async fn a_full_disk_is_counted() {
    let Some(disk) = SmallDisk::mount() else { return };
    let gateway = Gateway::start(Options::new().data_dir(disk.path())).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    for n in 0..20 {
        // Opening its files again, the store may find a little room.
        disk.fill();
        phone.send_text(CHAT, &format!("m-{n}"), &"x".repeat(30_000)).await;
        phone.expect_ack(&format!("m-{n}")).await;
        if metrics.grown(DISK[0]).await > 0.0 {
            break;
        }
    }
    metrics.moved(DISK).await;
}

#[tokio::test]
async fn who_sends_is_not_offline() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    phone.store_text(CHAT, "m-1", "x").await;
    friend.expect_push().await;
    assert_eq!(metrics.grown("tidegate_deliveries_total{result=local}").await, 1.0);
    assert_eq!(metrics.grown("tidegate_deliveries_total{result=offline}").await, 0.0);
}

#[tokio::test]
async fn a_store_that_cannot_is_told_from_one_that_does_not_answer() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let _: String = redis.query(&["SET", "{c:p2p:42:44}:log", "no stream"]).await;
    phone.send_text("p2p:42:44", "m-1", "x").await;
    assert_eq!(phone.expect_failed("m-1").await, ErrorCode::Internal);
    metrics.moved(&[INTERNAL]).await;
    redis.pause();
    phone.send_text(CHAT, "m-2", "x").await;
    metrics.becomes(IN_FLIGHT, 1.0).await;
    assert_eq!(phone.expect_failed("m-2").await, ErrorCode::RetryLater);
    metrics.becomes(IN_FLIGHT, 0.0).await;
    metrics.moved(&[RETRY_LATER]).await;
    redis.resume();
    metrics.are_conserved().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let redis = Redis::start().await;
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_LIMITS_SEND_WAIT", "10s");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    let mut devices = Vec::new();
    for n in 0..10 {
        devices.push(Client::connect(&gateway, 42, &format!("device-{n}")).await);
    }
    redis.pause();
    for (n, device) in devices.iter_mut().enumerate() {
        let send = |m| frame(Payload::Send(text(CHAT, &format!("m-{n}-{m}"), "x")));
        device.send_raw((0..600).flat_map(send).collect::<Vec<u8>>()).await;
    }
    metrics.moved(&[QUEUE_FULL]).await;
    assert!(metrics.now().await.get(IN_FLIGHT) > 1_000.0);
    redis.resume();
    metrics.becomes_within(IN_FLIGHT, 0.0, secs(20)).await;
    assert_eq!(metrics.grown("tidegate_messages_received_total").await, 6_000.0);
    metrics.are_conserved().await;
}

#[tokio::test]
async fn the_level_is_that_of_the_redis_at_hand() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    metrics.becomes(LEVEL, 1.0).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    assert_eq!(phone.store_text(CHAT, "m", "x").await.level, 1);
    for (key, value) in [("appendonly", "yes"), ("appendfsync", "always")] {
        let _: String = redis.query(&["CONFIG", "SET", key, value]).await;
    }
    let end = std::time::Instant::now() + secs(15);
    while phone.store_text(CHAT, "m", "x").await.level != 2 {
        assert!(std::time::Instant::now() < end, "acknowledged below the level at hand");
        tokio::time::sleep(secs(1)).await;
    }
    metrics.becomes(LEVEL, 2.0).await;
}
