//! A gateway that is asked to end.

mod common;

use std::time::Instant;

use common::{Client, Gateway, Options, Redis, eventually, secs};
use tidegate::proto::AckStatus;
use tidegate::proto::envelope::Payload;

#[tokio::test]
async fn what_was_stored_is_delivered_before_it_is_gone() {
    let redis = Redis::start().await;
    let (mut a, b) = tokio::join!(
        Gateway::start(Options::cluster(&redis, "gw-a")),
        Gateway::start(Options::cluster(&redis, "gw-b"))
    );
    let mut friend = Client::connect(&b, 99, "phone").await;
    let mut senders = Vec::new();
    for user in 1..=5 {
        senders.push((user, Client::connect(&a, user, "phone").await));
    }
    for n in 0..200 {
        for (user, sender) in &mut senders {
            sender.send_text(&format!("p2p:{user}:99"), &format!("{user}-{n}"), "x").await;
        }
    }
    // In the midst of it: something is stored, and most is not.
    let (_, last) = senders.last_mut().unwrap();
    let first = last.expect("an ack", |payload| match payload {
        Payload::Ack(ack) if ack.status() == AckStatus::Stored => Some(ack.client_msg_id.clone()),
        _ => None,
    });
    let mut stored = vec![first.await];
    a.terminate();
    for (_, mut sender) in senders {
        // Everything up to the Close, which must be there.
        assert_eq!(sender.expect_close().await, Some(1001));
        stored.extend(sender.drain().into_iter().filter_map(|payload| match payload {
            Payload::Ack(ack) if ack.status() == AckStatus::Stored => Some(ack.client_msg_id),
            _ => None,
        }));
    }
    assert!(a.exit(secs(15)).await.success());
    for id in stored {
        friend
            .expect(&format!("message {id}"), |payload| match payload {
                Payload::Push(push) if push.client_msg_id == id => Some(()),
                _ => None,
            })
            .await;
    }
    assert!(!a.log().contains("ERROR"), "{}", a.log());
}

#[tokio::test]
async fn whoever_is_not_ready_yet_is_sent_away_at_once() {
    let redis = Redis::start().await;
    let mut gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut waiting = Client::open(&gateway, "/ws?user=7&device=phone&resume=1").await;
    let start = Instant::now();
    gateway.terminate();
    assert_eq!(waiting.expect_close().await, Some(1001));
    assert!(gateway.exit(secs(15)).await.success());
    assert!(start.elapsed() < secs(4), "{:?}", start.elapsed());
    let keys: Vec<String> = redis.query(&["KEYS", "*route:7*"]).await;
    assert_eq!(keys, [""; 0]);
}

#[tokio::test]
async fn a_conversation_is_found_again_after_a_wipe() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    alice.store_text("p2p:42:43", "m-1", "before").await;
    let _: String = redis.query(&["FLUSHALL"]).await;
    assert_eq!(alice.store_text("p2p:42:43", "m-2", "after").await.seq, 1);
    eventually("the conversation is named", secs(5), || async {
        let bob = Client::connect(&gateway, 43, "phone").await;
        bob.ready.conversations.iter().any(|p| p.conversation_id == "p2p:42:43").then_some(())
    })
    .await;
}

#[tokio::test]
async fn thousands_of_heartbeats_in_one_message_are_no_slow_reader() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.send_raw(vec![0; 100_000]).await;
    phone.store_text("p2p:42:43", "m-1", "still here").await;
}
