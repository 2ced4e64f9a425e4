//! What only shows over Redis: publishes, numbers, subscriptions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{Bus, Cause, Destination, Receiver};
use super::*;
use crate::redis::testing::TestRedis;
use crate::types::{Epoch, unix_ms};
use crate::wire::pb::{BusMessage, Probe, bus_item::Item};

const SOON: Duration = Duration::from_secs(10);

struct World {
    client: Client,
    stop: CancellationToken,
    _server: TestRedis,
}

impl World {
    async fn new() -> Self {
        let server = TestRedis::start();
        Self { client: server.client().await, stop: CancellationToken::new(), _server: server }
    }

    async fn join(&self, name: &str) -> Bus {
        let deaf: Receiver = Arc::new(|_, _| {});
        let bus = RedisBus::start(self.client.clone(), TestRedis::keys(), at(name), deaf, false, &self.stop);
        let mut subscribed = bus.subscribed();
        timeout(SOON, subscribed.wait_for(|&n| n > 0)).await.unwrap().unwrap();
        Bus::Redis(bus)
    }

    async fn say(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let _: redis::Value = self.client.command(command).await.unwrap();
    }

    /// Every message with items that crosses a gateway's channel.
    async fn overhear(&self, name: &str) -> mpsc::Receiver<BusMessage> {
        let mut listener = self.client.pubsub().await.unwrap();
        listener.subscribe(TestRedis::keys().channel(&at(name).gateway)).await.unwrap();
        let (heard, hearing) = mpsc::channel(10_000);
        let mut messages = Box::pin(listener.into_on_message());
        tokio::spawn(async move {
            while let Some(message) =
                std::future::poll_fn(|cx| futures_core::Stream::poll_next(messages.as_mut(), cx)).await
            {
                let bytes: Bytes = message.get_payload::<Vec<u8>>().unwrap().into();
                let message = BusMessage::decode(bytes).unwrap();
                if message.counter > 0 && !message.items.is_empty() {
                    heard.try_send(message).unwrap();
                }
            }
        });
        hearing
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn at(name: &str) -> Destination {
    Destination { gateway: GatewayId::new(name).unwrap(), epoch: Epoch(7) }
}

fn item(nonce: u64) -> BusItem {
    BusItem { item: Some(Item::Probe(Probe { nonce })) }
}

/// When the next disturbance of this cause begins.
async fn since(bus: &Bus, cause: Cause) -> i64 {
    let wanted = async {
        loop {
            let disturbance = bus.disturbances().next().await;
            if disturbance.causes.contains(&cause) {
                return disturbance.since;
            }
        }
    };
    timeout(SOON, wanted).await.unwrap_or_else(|_| panic!("no {cause:?}"))
}

#[tokio::test]
async fn what_is_queued_together_leaves_in_one_publish_per_destination() {
    let world = World::new().await;
    let a = world.join("a").await;
    let (mut to_b, mut to_c) = (world.overhear("b").await, world.overhear("c").await);
    for round in 0..20_u64 {
        let items = (0..100).map(|n| (at(if n % 2 == 0 { "b" } else { "c" }), item(n + round * 100)));
        assert!(a.publish_all(items.collect()));
        for heard in [&mut to_b, &mut to_c] {
            let message = timeout(SOON, heard.recv()).await.unwrap().unwrap();
            assert_eq!(message.items.len(), 50, "round {round}");
        }
    }
    assert!(to_b.try_recv().is_err() && to_c.try_recv().is_err());
}

#[tokio::test]
async fn a_lost_last_message_is_seen_within_five_seconds() {
    let world = World::new().await;
    let (a, b) = (world.join("a").await, world.join("b").await);
    assert!(a.publish(at("b"), item(1)));
    let start = unix_ms();
    assert!((start - 6_000..=start + 6_000).contains(&since(&b, Cause::NewSource).await));
    // Refused: as lost as it can be, and the first repeat with it.
    world.say(&["ACL", "SETUSER", "default", "-publish"]).await;
    let lost = (Instant::now(), unix_ms());
    assert!(a.publish(at("b"), item(2)));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.say(&["ACL", "SETUSER", "default", "+publish"]).await;
    let hole = since(&b, Cause::Hole).await;
    assert!(lost.0.elapsed() < Duration::from_millis(5_000), "{:?}", lost.0.elapsed());
    assert!(hole <= lost.1, "it begins before the loss");
}

#[tokio::test]
async fn what_there_was_no_room_for_shows_as_a_hole() {
    let world = World::new().await;
    let (a, b) = (world.join("a").await, world.join("b").await);
    assert!(a.publish(at("b"), item(1)));
    since(&b, Cause::NewSource).await;
    // Nothing else runs on this thread: nobody makes room.
    let items = (1..=u64::try_from(QUEUE).unwrap() + 1).map(|n| (at("b"), item(n)));
    assert!(!a.publish_all(items.collect()));
    since(&b, Cause::Hole).await;
    assert!(a.publish(at("b"), item(2)), "there is room again");
}

#[tokio::test]
async fn another_subscription_is_held_until_routes_are_bound() {
    let world = World::new().await;
    let a = world.join("a").await;
    let mut hearing = match &a {
        Bus::Redis(bus) => bus.subscribed(),
        Bus::Memory(_) | Bus::Faulty(_) => unreachable!(),
    };
    let before = unix_ms();
    world.say(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    timeout(SOON, hearing.wait_for(|&n| n > 1)).await.unwrap().unwrap();
    let held = a.disturbances().take_held().expect("something is held");
    assert_eq!(held.causes, [Cause::Resubscribed]);
    assert!((before - 5_000..=unix_ms()).contains(&held.since), "{} {before}", held.since);
    assert!(timeout(Duration::from_millis(50), a.disturbances().next()).await.is_err());
}
