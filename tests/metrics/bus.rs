//! What crosses between gateways, and what should not have come.

use prost::Message;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{BusItem, BusMessage, Probe, bus_item::Item};

use crate::common::payload::{frame, typing};
use crate::common::{Client, Gateway, Options, Pair, Redis, secs};
use crate::scrape::{Metrics, Series};

pub(crate) const CROSSING: &[Series] = &[
    "tidegate_bus_messages_total{direction=out}",
    "tidegate_bus_messages_total{direction=in}",
    "tidegate_bus_lag_seconds_count",
    "tidegate_deliveries_total{result=remote}",
];
const FOREIGN: Series = "tidegate_bus_ignored_total{reason=other_gateway}";
const VERSION: Series = "tidegate_bus_ignored_total{reason=version}";
const BROKEN: Series = "tidegate_bus_ignored_total{reason=broken}";
const GAPS: Series = "tidegate_bus_gaps_total";
pub(crate) const FORGED: &[Series] = &[FOREIGN, VERSION, BROKEN, GAPS];
const QUEUE_FULL: Series = "tidegate_dropped_total{reason=bus_queue_full}";
const PUBLISH_FAILED: Series = "tidegate_dropped_total{reason=bus_publish_failed}";
pub(crate) const FULL: &[Series] = &[QUEUE_FULL, PUBLISH_FAILED];

const CHAT: &str = "p2p:42:43";
/// Of `gw-1`, as the contract of keys and channels says.
const CHANNEL: &str = "10065";

#[tokio::test]
async fn what_crosses_is_counted_on_both_sides_and_nothing_is_lost() {
    let Pair { redis: _redis, a, b } = Pair::start().await;
    let (at_a, at_b) = (Metrics::of(&a).await, Metrics::of(&b).await);
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    for n in 0..20 {
        alice.store_text(CHAT, &format!("a-{n}"), "x").await;
        bob.expect_push().await;
        bob.store_text(CHAT, &format!("b-{n}"), "y").await;
        alice.expect_push().await;
    }
    for metrics in [&at_a, &at_b] {
        metrics.moved(CROSSING).await;
        metrics.are_conserved().await;
        assert_eq!(metrics.grown("tidegate_deliveries_total{result=remote}").await, 20.0);
        assert_eq!(metrics.grown("tidegate_copies_written_total").await, 20.0);
        assert_eq!(metrics.grown(GAPS).await, 0.0);
    }
}

struct Forger {
    connection: redis::aio::MultiplexedConnection,
    genuine: BusMessage,
}

impl Forger {
    async fn publish(&mut self, bytes: Vec<u8>) {
        let heard: i64 =
            redis::cmd("PUBLISH").arg(CHANNEL).arg(bytes).query_async(&mut self.connection).await.unwrap();
        assert_eq!(heard, 1, "nobody listens on {CHANNEL}");
    }

    async fn forge(&mut self, bend: impl FnOnce(&mut BusMessage)) {
        let mut message = self.genuine.clone();
        bend(&mut message);
        self.publish(message.encode_to_vec()).await;
    }
}

#[tokio::test]
async fn forgeries_are_ignored_and_holes_are_seen() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-1")).await;
    let metrics = Metrics::of(&gateway).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let genuine = BusMessage {
        version: 1,
        source_gateway: "gw-x".to_owned(),
        source_epoch: 7,
        destination_gateway: "gw-1".to_owned(),
        destination_epoch: gateway.epoch,
        counter: 1,
        sent_at_micros: 0,
        items: vec![BusItem { item: Some(Item::Probe(Probe { nonce: 1 })) }],
    };
    let mut forger = Forger { connection: client.get_multiplexed_async_connection().await.unwrap(), genuine };
    forger.forge(|message| message.destination_gateway = "gw-2".to_owned()).await;
    forger.forge(|message| message.destination_epoch = 1).await;
    forger.forge(|message| message.version = 99).await;
    forger.publish(vec![0xff; 9]).await;
    forger.publish(Vec::new()).await;
    forger.forge(|message| message.source_gateway = "{nobody}".to_owned()).await;
    for counter in [1, 2, 3] {
        forger.forge(|message| message.counter = counter).await;
    }
    // A repeat of the last number is no hole, a later one is.
    forger.forge(|message| (message.counter, message.items) = (3, Vec::new())).await;
    forger.forge(|message| message.counter = 5).await;
    forger.forge(|message| (message.counter, message.items) = (6, Vec::new())).await;
    metrics.moved(FORGED).await;
    tokio::time::sleep(secs(1)).await;
    for (series, count) in [(VERSION, 1.0), (GAPS, 2.0)] {
        assert_eq!(metrics.grown(series).await, count, "{series}");
    }
    assert!(metrics.grown(FOREIGN).await >= 2.0);
    Client::connect(&gateway, 42, "phone").await.beat().await;
}

#[tokio::test]
async fn a_bus_that_is_full_drops_and_counts() {
    let redis = Redis::start().await;
    // One worker: while it fans out, nobody publishes.
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").env("TIDEGATE_WORKERS", "1")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let expiry = crate::common::token::now() + 120;
    for n in 0..200 {
        let lease = r#"{"epoch":1,"listen":"","admin":"","pid":0,"connections":0}"#;
        let _: String = redis.query(&["SET", &format!("gateway:fake-{n}"), lease]).await;
        let seat = format!("fake-{n}|1|{n}|{}|{expiry}", n + 1);
        let _: i64 = redis.query(&["HSET", "{route:43}:devices", &format!("d-{n}"), &seat]).await;
    }
    for _ in 0..4 {
        phone.send_raw(frame(typing(CHAT, true)).repeat(500)).await;
    }
    metrics.moved_within(&[QUEUE_FULL], secs(20)).await;
    phone.beat().await;
}

#[tokio::test]
async fn what_cannot_be_published_is_counted() {
    let Pair { redis, a, b } = Pair::start().await;
    let metrics = Metrics::of(&a).await;
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    alice.send(Payload::Send(crate::common::payload::text(CHAT, "m-1", "x"))).await;
    bob.expect_push().await;
    let allowed: String = redis.query(&["ACL", "SETUSER", "default", "-publish"]).await;
    assert_eq!(allowed, "OK");
    alice.send(Payload::Send(crate::common::payload::text(CHAT, "m-2", "y"))).await;
    metrics.moved(&[PUBLISH_FAILED]).await;
}
