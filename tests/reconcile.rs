//! What is lost between gateways reaches its reader all the same.

mod common;

use std::time::Instant;

use common::payload::text_of;
use common::{Client, Pair, eventually, secs};

const CHAT: &str = "p2p:42:43";

/// Alice on the one gateway, and Bob on the other.
struct Talk {
    pair: Pair,
    alice: Client,
    bob: Client,
}

impl Talk {
    /// Both gateways know each other: a message has crossed.
    async fn start() -> Self {
        let pair = Pair::start().await;
        let mut alice = Client::connect(&pair.a, 42, "phone").await;
        let mut bob = Client::connect(&pair.b, 43, "phone").await;
        alice.store_text(CHAT, "m-0", "hello").await;
        bob.expect_push().await;
        let talk = Self { pair, alice, bob };
        talk.bobs_gateway_counts("new_source").await;
        talk
    }

    /// Waits until Bob's gateway has counted a cause to reconcile.
    async fn bobs_gateway_counts(&self, cause: &str) {
        let line = format!("tidegate_reconciliations_total{{cause=\"{cause}\"}} ");
        let http = self.pair.b.http();
        eventually(&line, secs(6), || async {
            let text = http.get("/metrics").await.success().text();
            text.lines().any(|found| found.starts_with(&line) && !found.ends_with(" 0")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_last_message_reaches_its_reader_within_six_seconds() {
    let mut talk = Talk::start().await;
    let start = Instant::now();
    talk.pair.may_publish(false).await;
    talk.alice.store_text(CHAT, "m-1", "lost").await;
    eventually("the publish fails", secs(1), || async {
        let text = talk.pair.a.http().get("/metrics").await.success().text();
        let dropped = "tidegate_dropped_total{reason=\"bus_publish_failed\"} ";
        text.lines().any(|line| line.starts_with(dropped) && !line.ends_with(" 0")).then_some(())
    })
    .await;
    talk.pair.may_publish(true).await;
    assert_eq!(text_of(&talk.bob.expect_push().await), "lost");
    assert!(start.elapsed() < secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_was_sent_while_nobody_listened_reaches_its_reader() {
    let mut talk = Talk::start().await;
    for n in 0..20 {
        let _: i64 = talk.pair.redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let text = format!("text {n}");
        talk.alice.store_text(CHAT, &format!("m-{n}-again"), &text).await;
    }
    for n in 0..20 {
        assert_eq!(text_of(&talk.bob.expect_push().await), format!("text {n}"));
    }
}

#[tokio::test]
async fn whoever_lost_his_lease_looks_for_what_he_missed() {
    let mut talk = Talk::start().await;
    let gone: i64 = talk.pair.redis.query(&["DEL", "gateway:gw-b", "route:43", "{route:43}:devices"]).await;
    assert_eq!(gone, 3);
    talk.bobs_gateway_counts("lease").await;
    let route: String = talk.pair.redis.query(&["GET", "route:43"]).await;
    assert_eq!(route, "gw-b", "bound before it looks");
    talk.alice.store_text(CHAT, "m-1", "there again").await;
    assert_eq!(text_of(&talk.bob.expect_push().await), "there again");
}

#[tokio::test]
async fn a_quiet_pair_of_gateways_has_nothing_to_look_for() {
    let mut talk = Talk::start().await;
    // Behind the repeats of the last number, which are no holes.
    tokio::time::sleep(secs(5)).await;
    talk.alice.store_text(CHAT, "m-1", "still here").await;
    assert_eq!(text_of(&talk.bob.expect_push().await), "still here");
    let text = talk.pair.b.http().get("/metrics").await.success().text();
    let count = |cause: &str| {
        let line = format!("tidegate_reconciliations_total{{cause=\"{cause}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).map(str::to_owned)
    };
    for (cause, times) in [("hole", "0"), ("new_source", "1"), ("resubscribed", "0"), ("lease", "0")] {
        assert_eq!(count(cause).as_deref(), Some(times), "{cause}");
    }
}
