//! Groups of many thousands: one message reaches everybody, and what it costs
//! does not grow with them where it need not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod crowd;

use std::time::{Duration, Instant};

use common::payload::{delivered, receipt, text_of};
use common::{Client, Gateway, Options, Redis, secs};
use crowd::Crowd;
use serde_json::json;
use tidegate::proto::ErrorCode;
use tokio::sync::Semaphore;

const ALL: &str = "g:all";
/// Online at once: with the gateway's own sockets below its 20,000
/// descriptors, and so here.
const MANY: i64 = 15_000;
const READERS: usize = 1_000;

async fn make(gateway: &Gateway, members: i64) {
    let body = json!({"id": ALL, "members": (1..=members).collect::<Vec<_>>()});
    assert_eq!(gateway.http().post("/v1/conversations", &body).await.status, 201);
}

/// The sum of a metric over gateways.
async fn sum(gateways: &[&Gateway], series: &str) -> u64 {
    let mut sum = 0;
    for gateway in gateways {
        let text = gateway.http().get("/metrics").await.success().text();
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok();
        sum += text.lines().find_map(value).map_or(0, |value| value as u64);
    }
    sum
}

const PUBLISHED: &str = "tidegate_bus_messages_total{direction=\"out\"}";
const COMMANDS: &str = "tidegate_redis_commands_total";
/// Routes are kept alive meanwhile.
const REFRESHED: &str = "tidegate_route_operations_total{operation=\"refresh\",result=\"ok\"}";

/// How often Redis has run these commands, in scripts or not.
async fn calls(redis: &Redis, commands: &[&str]) -> u64 {
    let stats: String = redis.query(&["INFO", "commandstats"]).await;
    let of = |command: &&str| {
        let line = format!("cmdstat_{command}:calls=");
        stats.lines().find_map(|found| found.strip_prefix(&line)?.split(',').next()?.parse::<u64>().ok())
    };
    commands.iter().filter_map(of).sum()
}

/// Waits until a number stays as it is for two seconds, and returns it.
async fn rested<F: Future<Output = u64>>(ask: impl Fn() -> F) -> u64 {
    let end = Instant::now() + secs(20);
    let (mut last, mut since) = (ask().await, Instant::now());
    while since.elapsed() < secs(2) {
        assert!(Instant::now() < end, "it does not come to rest");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = ask().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// One crowd at a time: each needs most of the process's descriptors.
static TURN: Semaphore = Semaphore::const_new(1);

/// One message to everybody, all of whom confirm it; `most` = bus messages
/// that it may take.
async fn one_to_all(gateways: &[&Gateway], redis: Option<&Redis>, most: u64) {
    let _turn = TURN.acquire().await.unwrap();
    make(gateways[0], MANY).await;
    let mut one = Client::connect(gateways[0], 1, "phone").await;
    let mut crowd = Crowd::connect(gateways, 2..=MANY).await;
    for n in 1..=3 {
        let published = rested(|| sum(gateways, PUBLISHED)).await;
        let text = format!("message {n}");
        let ack = one.store_text(ALL, &format!("m-{n}"), &text).await;
        let push = crowd.expect_push().await;
        assert_eq!((push.seq, text_of(&push), ack.seq), (n, text.as_str(), n));
        let published = sum(gateways, PUBLISHED).await - published;
        assert!(published <= most, "{published} bus messages");
    }
    // All say that they have it: written once, to learn that it is for nought.
    let published = rested(|| sum(gateways, PUBLISHED)).await;
    let (commands, refreshed) = (sum(gateways, COMMANDS).await, sum(gateways, REFRESHED).await);
    let written = async || match redis {
        Some(redis) => calls(redis, &["hset", "xadd", "hdel"]).await,
        None => 0,
    };
    let before = written().await;
    crowd.say(|_| delivered(ALL, 3)).await;
    crowd.say(|index| if index < READERS { receipt(ALL, 3) } else { delivered(ALL, 3) }).await;
    if let Some(redis) = redis {
        let kept = async || redis.query::<u64>(&["HLEN", "{c:g:all}:cursors"]).await;
        let end = Instant::now() + secs(20);
        while kept().await < READERS as u64 {
            assert!(
                Instant::now() < end,
                "{} positions, {} dropped",
                kept().await,
                sum(gateways, "tidegate_dropped_total{reason=\"report_queue_full\"}").await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(secs(2)).await;
        let writes = written().await - before;
        let refreshed = sum(gateways, REFRESHED).await - refreshed;
        // One of a gateway that does not know the group's size yet.
        let most = READERS as u64 + gateways.len() as u64;
        assert!(writes - refreshed <= most, "{writes} writes, {refreshed} routes refreshed");
        assert!(kept().await <= most, "{} positions", kept().await);
        // A position, and where else its owner is.
        let commands = sum(gateways, COMMANDS).await - commands - refreshed;
        assert!(commands <= 3 * READERS as u64 + 500, "{commands} commands");
    }
    let published = sum(gateways, PUBLISHED).await - published;
    // Nobody else is told; gateways repeat to each other where they are.
    assert!(published <= 60, "{published} bus messages");
    crowd.expect_silence();
    one.beat().await;
    assert!(one.drain().is_empty(), "the sender is told");
}

#[tokio::test]
async fn one_message_reaches_fifteen_thousand_on_one_gateway() {
    let gateway = Gateway::start(Options::new()).await;
    one_to_all(&[&gateway], None, 0).await;
}

#[tokio::test]
async fn one_message_reaches_fifteen_thousand_on_three_gateways() {
    let redis = Redis::start().await;
    // Whose rounds write, too.
    let start = |id| Gateway::start(Options::cluster(&redis, id).env("TIDEGATE_PRESENCE_ENABLED", "false"));
    let (a, b, c) = tokio::join!(start("gw-a"), start("gw-b"), start("gw-c"));
    one_to_all(&[&a, &b, &c], Some(&redis), 2).await;
}

#[tokio::test]
async fn the_largest_group_works_with_few_online() {
    const LARGEST: i64 = 100_000;
    let redis = Redis::start().await;
    // Whose rounds write, too.
    let start = |id| Gateway::start(Options::cluster(&redis, id).env("TIDEGATE_PRESENCE_ENABLED", "false"));
    let (a, b) = tokio::join!(start("gw-a"), start("gw-b"));
    make(&a, LARGEST).await;
    let mut one = Client::connect(&a, 1, "phone").await;
    let mut crowd = Crowd::connect(&[&a, &b], 2..=100).await;
    one.store_text(ALL, "m-1", "hello").await;
    assert_eq!(crowd.expect_push().await.seq, 1);
    let mut last = Client::connect(&b, LARGEST, "phone").await;
    assert_eq!(last.ready.conversations[0].unread, 1);
    let path = format!("/v1/conversations/{ALL}");
    let member = format!("{path}/members/{LARGEST}");
    a.http().send(hyper::Method::DELETE, &member, bytes::Bytes::new()).await.success();
    last.send_text(ALL, "x", "let me in").await;
    assert_eq!(last.expect_failed("x").await, ErrorCode::NotFound);
    one.store_text(ALL, "m-2", "hello").await;
    assert_eq!(crowd.expect_push().await.seq, 2);
    a.http().send(hyper::Method::DELETE, &path, bytes::Bytes::new()).await.success();
    one.send_text(ALL, "m-3", "hello").await;
    assert_eq!(one.expect_failed("m-3").await, ErrorCode::NotFound);
}
