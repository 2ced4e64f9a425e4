//! Two and three gateways on one Redis: what crosses between them, and whose
//! route stands.

mod common;

use common::payload::{custom, delivered, receipt, text_of, typing};
use common::{Client, Gateway, Options, Redis, SOON, eventually, secs, throughout};
use tidegate::proto::KickReason;
use tidegate::proto::envelope::Payload;

const CHAT: &str = "p2p:42:43";

struct Pair {
    redis: Redis,
    a: Gateway,
    b: Gateway,
}

impl Pair {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let (a, b) = tokio::join!(
            Gateway::start(Options::cluster(&redis, "gw-a")),
            Gateway::start(Options::cluster(&redis, "gw-b"))
        );
        Self { redis, a, b }
    }

    async fn route(&self, user: i64) -> Option<String> {
        self.redis.query(&["GET", &format!("route:{user}")]).await
    }

    async fn route_becomes(&self, user: i64, gateway: Option<&str>) {
        eventually(&format!("route:{user} is {gateway:?}"), SOON, || async {
            (self.route(user).await.as_deref() == gateway).then_some(())
        })
        .await;
    }

    async fn devices(&self, user: i64) -> Vec<String> {
        let mut devices: Vec<String> =
            self.redis.query(&["HKEYS", &format!("{{route:{user}}}:devices")]).await;
        devices.sort();
        devices
    }
}

#[tokio::test]
async fn a_conversation_crosses_gateways_both_ways() {
    let pair = Pair::start().await;
    let mut alice = Client::connect(&pair.a, 42, "phone").await;
    let mut bob = Client::connect(&pair.b, 43, "phone").await;
    assert_eq!((alice.ready.gateway_id.as_str(), bob.ready.gateway_id.as_str()), ("gw-a", "gw-b"));

    let mut seq = 0;
    for round in 0..3 {
        for forth in [true, false] {
            let ((from, sender), (to, receiver)) =
                if forth { ((42, &mut alice), (43, &mut bob)) } else { ((43, &mut bob), (42, &mut alice)) };
            seq += 1;

            sender.send(typing(CHAT, true)).await;
            // Before the first message the two are partners of nothing yet.
            if round > 0 {
                let typist = receiver
                    .expect("Typing", |p| if let Payload::Typing(t) = p { Some(t.by_user_id) } else { None })
                    .await;
                assert_eq!(typist, from);
            }
            let ack = sender.store_text(CHAT, &format!("m-{from}-{round}"), &format!("text {seq}")).await;
            let push = receiver.expect_push().await;
            assert_eq!(
                (push.seq, push.from_user_id, text_of(&push)),
                (seq, from, format!("text {seq}").as_str())
            );
            assert_eq!((&push.server_msg_id, push.epoch), (&ack.server_msg_id, ack.epoch));

            receiver.send(delivered(CHAT, seq)).await;
            assert_eq!(sender.expect_delivered(CHAT, seq).await.by_user_id, to);
            receiver.send(receipt(CHAT, seq)).await;
            let read = sender
                .expect("a Receipt", |p| match p {
                    Payload::Read(read) if read.read_seq == seq => Some(read.by_user_id),
                    _ => None,
                })
                .await;
            assert_eq!(read, to);
        }
    }
}

#[tokio::test]
async fn a_repeated_send_through_another_gateway_is_answered_with_the_original() {
    let pair = Pair::start().await;
    let mut phone = Client::connect(&pair.a, 42, "phone").await;
    let mut laptop = Client::connect(&pair.b, 42, "laptop").await;
    let original = phone.store_text(CHAT, "m-1", "once").await;
    let again = laptop.store_text(CHAT, "m-1", "once").await;
    assert!(again.duplicate);
    assert_eq!((again.server_msg_id, again.seq), (original.server_msg_id, original.seq));
}

#[tokio::test]
async fn every_device_of_a_user_receives_wherever_it_is() {
    let pair = Pair::start().await;
    let mut alice = Client::connect(&pair.a, 42, "phone").await;
    let mut phone = Client::connect(&pair.a, 43, "phone").await;
    let mut laptop = Client::connect(&pair.b, 43, "laptop").await;
    assert_eq!(pair.devices(43).await, ["laptop", "phone"]);
    alice.store_text(CHAT, "m-1", "to both").await;
    assert_eq!(text_of(&phone.expect_push().await), "to both");
    assert_eq!(text_of(&laptop.expect_push().await), "to both");
    phone.store_text(CHAT, "m-2", "from one").await;
    assert_eq!(text_of(&laptop.expect_push().await), "from one");
    assert_eq!(text_of(&alice.expect_push().await), "from one");
    phone.beat().await;
    assert!(phone.drain_texts().is_empty(), "the sending device got its own message");
}

#[tokio::test]
async fn a_route_names_the_gateway_of_the_newest_device_that_is_left() {
    let pair = Pair::start().await;
    let phone = Client::connect(&pair.a, 42, "phone").await;
    pair.route_becomes(42, Some("gw-a")).await;
    let laptop = Client::connect(&pair.b, 42, "laptop").await;
    pair.route_becomes(42, Some("gw-b")).await;
    assert_eq!(pair.devices(42).await, ["laptop", "phone"]);
    laptop.close().await;
    pair.route_becomes(42, Some("gw-a")).await;
    assert_eq!(pair.devices(42).await, ["phone"]);
    phone.close().await;
    pair.route_becomes(42, None).await;
    assert!(pair.devices(42).await.is_empty());
}

#[tokio::test]
async fn heartbeats_keep_a_route_alive() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").env("TIDEGATE_ROUTE_REFRESH", "1s")).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    for key in ["route:42", "{route:42}:devices"] {
        let ttl: i64 = redis.query(&["TTL", key]).await;
        assert!((1..=120).contains(&ttl), "{key}: {ttl}");
    }
    let expire: i64 = redis.query(&["EXPIRE", "route:42", "30"]).await;
    assert_eq!(expire, 1);
    let _: i64 = redis.query(&["EXPIRE", "{route:42}:devices", "30"]).await;
    let end = std::time::Instant::now() + secs(15);
    loop {
        phone.beat().await;
        let ttls: (i64, i64) =
            (redis.query(&["TTL", "route:42"]).await, redis.query(&["TTL", "{route:42}:devices"]).await);
        if (31..=120).contains(&ttls.0) && (31..=120).contains(&ttls.1) {
            break;
        }
        assert!(std::time::Instant::now() < end, "not refreshed: {ttls:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_device_that_moves_is_not_unbound_by_the_gateway_it_left() {
    let pair = Pair::start().await;
    let mut alice = Client::connect(&pair.a, 43, "phone").await;
    let mut old = Client::connect(&pair.a, 42, "phone").await;
    pair.route_becomes(42, Some("gw-a")).await;
    let mut new = Client::connect(&pair.b, 42, "phone").await;
    let (_, code) = old.expect_kick(KickReason::Replaced).await;
    assert_eq!(code, Some(4009));
    drop(old);
    throughout("route:42 is gw-b", secs(3), || async { pair.route(42).await.as_deref() == Some("gw-b") })
        .await;
    assert_eq!(pair.devices(42).await, ["phone"]);
    alice.store_text(CHAT, "m-1", "welcome").await;
    assert_eq!(text_of(&new.expect_push().await), "welcome");

    // And back again.
    let mut newest = Client::connect(&pair.a, 42, "phone").await;
    new.expect_kick(KickReason::Replaced).await;
    drop(new);
    throughout("route:42 is gw-a", secs(2), || async { pair.route(42).await.as_deref() == Some("gw-a") })
        .await;
    newest.beat().await;
}

#[tokio::test]
async fn gateways_that_share_a_channel_ignore_what_is_not_theirs() {
    let redis = Redis::start().await;
    let (one, two, far) = tokio::join!(
        Gateway::start(Options::cluster(&redis, "gw-28")),
        Gateway::start(Options::cluster(&redis, "gw-1302")),
        Gateway::start(Options::cluster(&redis, "gw-1"))
    );
    let subscribers: (String, i64, String, i64) = redis.query(&["PUBSUB", "NUMSUB", "22656", "10065"]).await;
    assert_eq!(subscribers, ("22656".to_owned(), 2, "10065".to_owned(), 1));

    let mut alice = Client::connect(&far, 42, "phone").await;
    let mut phone = Client::connect(&one, 43, "phone").await;
    let mut laptop = Client::connect(&two, 43, "laptop").await;
    let mut other = Client::connect(&two, 44, "phone").await;
    alice.store_text(CHAT, "m-0", "hello").await;
    // A Custom has no seq to be deduplicated by: a second copy would show.
    for n in 0..20 {
        alice.send(custom(&format!("note-{n}"), &[43])).await;
    }
    alice.store_text(CHAT, "m-1", "end").await;
    alice.send(custom("end", &[43])).await;
    for device in [&mut phone, &mut laptop] {
        device.expect("the end", |p| matches!(p, Payload::Custom(c) if c.topic == "end").then_some(())).await;
        for expected in ["hello", "end"] {
            assert_eq!(text_of(&device.expect_push().await), expected);
        }
        device.beat().await;
        let notes: Vec<String> = device
            .drain()
            .into_iter()
            .filter_map(|p| if let Payload::Custom(c) = p { Some(c.topic) } else { None })
            .collect();
        let expected: Vec<String> = (0..20).map(|n| format!("note-{n}")).collect();
        assert_eq!(notes, expected);
    }
    other.beat().await;
    assert!(other.drain().is_empty(), "the neighbour's traffic came in");
}
