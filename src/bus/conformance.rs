//! The suite both backends pass.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::redis::testing::TestRedis;
use crate::wire::pb::{Probe, bus_item::Item};

type Heard = mpsc::Receiver<(String, u64)>;

fn ear() -> (Receiver, Heard) {
    let (tx, rx) = mpsc::channel(1_000);
    let receiver: Receiver = Arc::new(move |source, item| {
        // Nonce 0 is the subscription's own probe.
        if let Some(Item::Probe(Probe { nonce: nonce @ 1.. })) = item.item {
            tx.try_send((source.to_string(), nonce)).unwrap();
        }
    });
    (receiver, rx)
}

fn at(name: &str, epoch: u64) -> Destination {
    Destination { gateway: GatewayId::new(name).unwrap(), epoch: Epoch(epoch) }
}

fn item(nonce: u64) -> BusItem {
    BusItem { item: Some(Item::Probe(Probe { nonce })) }
}

async fn next(heard: &mut Heard) -> (String, u64) {
    timeout(Duration::from_secs(10), heard.recv()).await.expect("hears in time").unwrap()
}

/// `join` makes a gateway's bus, ready to publish and to hear. The two names
/// share a channel number.
async fn suite<F: Future<Output = Bus>>(join: impl Fn(Destination, Receiver) -> F) {
    let (receiver, mut heard_a) = ear();
    let a = join(at("gw-28", 7), receiver).await;
    let (receiver, mut heard_b) = ear();
    let b = join(at("gw-1302", 8), receiver).await;

    // In order, to the named gateway only, whatever the channel.
    for nonce in 1..=100 {
        assert!(a.publish(at("gw-1302", 8), item(nonce)));
    }
    for nonce in 1..=100 {
        assert_eq!(next(&mut heard_b).await, ("gw-28".to_owned(), nonce));
    }
    // Another epoch is nobody; epoch 0 is whichever runs.
    assert!(a.publish(at("gw-1302", 9), item(200)));
    assert!(a.publish(at("gw-1302", 0), item(201)));
    assert_eq!(next(&mut heard_b).await.1, 201);
    // To oneself, the whole way round.
    assert!(b.publish(at("gw-1302", 8), item(300)));
    assert_eq!(next(&mut heard_b).await, ("gw-1302".to_owned(), 300));
    // Nobody at all.
    assert!(a.publish(at("nobody", 1), item(400)));
    assert!(b.publish(at("gw-28", 7), item(500)));
    assert_eq!(next(&mut heard_a).await, ("gw-1302".to_owned(), 500));
    assert!(heard_a.try_recv().is_err() && heard_b.try_recv().is_err());
}

#[tokio::test]
async fn memory() {
    let exchange = Arc::new(MemoryExchange::default());
    suite(|own, receiver| {
        let exchange = Arc::clone(&exchange);
        async move { Bus::Memory(MemoryBus::join(exchange, own, receiver)) }
    })
    .await;
}

#[tokio::test]
async fn redis() {
    let server = TestRedis::start();
    let client = server.client().await;
    let stop = CancellationToken::new();
    suite(|own, receiver| {
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            let bus = RedisBus::start(client, TestRedis::keys(), own, receiver, false, &stop);
            let mut subscribed = bus.subscribed();
            timeout(Duration::from_secs(10), subscribed.wait_for(|&n| n > 0)).await.unwrap().unwrap();
            Bus::Redis(bus)
        }
    })
    .await;
    stop.cancel();
}
