//! What the gateway asks of Redis: how many commands each thing takes, as
//! Redis itself sees them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::payload::delivered;
use common::{Client, Gateway, Options, Pair, Redis, eventually, secs};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = secs(30);

/// Without the rounds of presence, one a second whatever is done.
fn quiet(options: Options) -> Options {
    options.env("TIDEGATE_PRESENCE_ENABLED", "false")
}

/// Every command that clients of a Redis give, in order.
struct Monitor<'a> {
    redis: &'a Redis,
    heard: Arc<Mutex<Vec<String>>>,
    marks: u32,
}

impl<'a> Monitor<'a> {
    async fn of(redis: &'a Redis) -> Self {
        let address = redis.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line).into_owned();
                // What scripts do is theirs.
                if !line.contains(" lua] ") {
                    told.lock().push(line);
                }
            }
        });
        let mut monitor = Self { redis, heard, marks: 0 };
        monitor.forget().await;
        monitor
    }

    /// Waits until it has heard all so far, and forgets it.
    async fn forget(&mut self) -> Vec<String> {
        self.marks += 1;
        let mark = format!("mark-{}", self.marks);
        let quoted = format!("\"{mark}\"");
        eventually("the monitor's mark", PATIENCE, || async {
            // Again and again: the first one may come before it listens.
            let _: String = self.redis.query(&["ECHO", &mark]).await;
            self.heard.lock().iter().any(|line| line.contains(&quoted)).then_some(())
        })
        .await;
        std::mem::take(&mut *self.heard.lock())
    }

    /// How often which command was given since the last look, of those that
    /// name one of these.
    async fn count(&mut self, names: &[&str]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.forget().await {
            let named = names.iter().any(|name| line.contains(name));
            if let Some(command) = line.split('"').nth(1).filter(|_| named) {
                *counts.entry(command.to_uppercase()).or_default() += 1;
            }
        }
        counts
    }
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.map(|(command, count)| (command.to_owned(), count)).into()
}

#[tokio::test]
async fn a_bind_is_a_script_a_list_and_one_read_of_tops() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(quiet(Options::cluster(&redis, "gw-a"))).await;
    let mut monitor = Monitor::of(&redis).await;
    let stranger = Client::connect(&gateway, 800_001, "phone").await;
    assert_eq!(monitor.count(&["800001"]).await, counts([("EVALSHA", 1), ("ZREVRANGEBYSCORE", 1)]));
    let mut writer = Client::connect(&gateway, 800_002, "phone").await;
    for other in 1..=5 {
        writer.store_text(&format!("p2p:800002:80001{other}"), "m", "hello").await;
    }
    writer.close().await;
    eventually("the writer has left", PATIENCE, || async {
        let route: Option<String> = redis.query(&["GET", "route:800002"]).await;
        route.is_none().then_some(())
    })
    .await;
    monitor.forget().await;
    let writer = Client::connect(&gateway, 800_002, "phone").await;
    assert_eq!(writer.ready.conversations.len(), 5);
    let of_bind = monitor.count(&["800002"]).await;
    // Of each conversation its top and the user's cursors, in one round trip.
    assert_eq!(of_bind, counts([("EVALSHA", 1), ("HMGET", 10), ("ZREVRANGEBYSCORE", 1)]));
    drop((stranger, writer));
}

#[tokio::test]
async fn a_refresh_is_a_script_for_each_user() {
    let redis = Redis::start().await;
    let options = quiet(Options::cluster(&redis, "gw-a")).env("TIDEGATE_ROUTE_REFRESH", "1s");
    let gateway = Gateway::start(options).await;
    let clients =
        [Client::connect(&gateway, 810_001, "phone").await, Client::connect(&gateway, 810_001, "desk").await];
    let mut monitor = Monitor::of(&redis).await;
    let begin = std::time::Instant::now();
    let mut seen = 0;
    // A connection is looked at once a heartbeat or so.
    while seen == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refreshed = monitor.count(&["{route:810001}"]).await;
        assert!(refreshed.keys().all(|command| command == "EVALSHA"), "{refreshed:?}");
        seen += refreshed.values().sum::<usize>();
        assert!(begin.elapsed() < 2 * PATIENCE, "no refresh");
    }
    assert!(seen <= clients.len(), "{seen} scripts for one refresh");
    drop(clients);
}

#[tokio::test]
async fn a_message_between_two_users_is_a_script_two_reads_and_a_publish() {
    const CHAT: &str = "p2p:820001:820002";
    const MESSAGES: usize = 30;
    let pair = Pair::start_with(quiet).await;
    let mut one = Client::connect(&pair.a, 820_001, "phone").await;
    let mut two = Client::connect(&pair.b, 820_002, "phone").await;
    one.store_text(CHAT, "first", "hello").await;
    two.expect_push().await;
    let mut monitor = Monitor::of(&pair.redis).await;
    for number in 0..MESSAGES {
        one.store_text(CHAT, &format!("m-{number}"), "hello").await;
        two.expect_push().await;
    }
    let mut asked = monitor.count(&["820001", "820002"]).await;
    // Where the conversation stands among a user's, at times, and not per message.
    assert!(asked.remove("ZADD").unwrap_or(0) <= 4);
    assert_eq!(asked, counts([("EVALSHA", MESSAGES), ("HGETALL", 2 * MESSAGES), ("PUBLISH", MESSAGES)]));
}

#[tokio::test]
async fn a_group_message_is_a_script_and_a_publish_for_each_gateway() {
    const MESSAGES: usize = 30;
    let pair = Pair::start_with(quiet).await;
    let group = json!({"id": "g:count", "members": [830_001, 830_002, 830_003]});
    assert_eq!(pair.a.http().post("/v1/conversations", &group).await.status, 201);
    let mut one = Client::connect(&pair.a, 830_001, "phone").await;
    let mut two = Client::connect(&pair.b, 830_002, "phone").await;
    let mut three = Client::connect(&pair.b, 830_003, "phone").await;
    one.store_text("g:count", "first", "hello").await;
    two.expect_push().await;
    three.expect_push().await;
    let mut monitor = Monitor::of(&pair.redis).await;
    let expected = counts([("EVALSHA", MESSAGES), ("PUBLISH", MESSAGES)]);
    let mut rounds = Vec::new();
    // Two gateways that have just met look once where all stands.
    while rounds.last() != Some(&expected) {
        assert!(rounds.len() < 5, "{rounds:?}");
        for number in 0..MESSAGES {
            one.store_text("g:count", &format!("m-{}-{number}", rounds.len()), "hello").await;
            two.expect_push().await;
            three.expect_push().await;
        }
        let mut asked = monitor.count(&["g:count", "830001", "830002", "830003"]).await;
        // Of the group's making, and where it stands among its members', at times.
        assert!(asked.remove("ZREVRANGEBYSCORE").unwrap_or(0) <= 4);
        assert!(asked.remove("ZADD").unwrap_or(0) <= 6);
        rounds.push(asked);
    }
}

#[tokio::test]
async fn a_hinted_message_is_read_once_by_each_gateway_at_most() {
    const MEMBERS: std::ops::RangeInclusive<i64> = 840_001..=840_012;
    let hot = |options: Options| {
        quiet(options).env("TIDEGATE_GROUPS_PUSH_MEMBERS", "2").env("TIDEGATE_GROUPS_PULL_SPREAD", "0s")
    };
    let pair = Pair::start_with(hot).await;
    let group = json!({"id": "g:hot", "members": MEMBERS.collect::<Vec<_>>()});
    assert_eq!(pair.a.http().post("/v1/conversations", &group).await.status, 201);
    let mut writer = Client::connect(&pair.a, 840_001, "phone").await;
    let mut members = Vec::new();
    for user in MEMBERS.skip(1) {
        let gateway = if user % 2 == 0 { &pair.a } else { &pair.b };
        members.push(Client::connect(gateway, user, "phone").await);
    }
    let mut monitor = Monitor::of(&pair.redis).await;
    for number in 1..=10 {
        writer.store_text("g:hot", &format!("m-{number}"), "hello").await;
        for member in &mut members {
            member.expect_hint("g:hot").await;
            assert_eq!(member.pull_from("g:hot", number).await.len(), 1);
        }
    }
    let reads = monitor.count(&["{c:g:hot}:log"]).await.remove("XRANGE").unwrap_or(0);
    assert!(reads <= 2 * 10, "{reads} reads of the log by 2 gateways for 10 messages to 11 members");
}

#[tokio::test]
async fn positions_are_written_once_a_second() {
    const CHAT: &str = "p2p:850001:850002";
    let redis = Redis::start().await;
    let gateway = Gateway::start(quiet(Options::cluster(&redis, "gw-a"))).await;
    let mut one = Client::connect(&gateway, 850_001, "phone").await;
    let mut two = Client::connect(&gateway, 850_002, "phone").await;
    for number in 1..=20 {
        one.store_text(CHAT, &format!("m-{number}"), "hello").await;
        two.expect_push().await;
    }
    let mut monitor = Monitor::of(&redis).await;
    let begin = std::time::Instant::now();
    for seq in 1..=20 {
        two.send(delivered(CHAT, seq)).await;
        two.beat().await;
    }
    one.expect_delivered(CHAT, 20).await;
    let written = monitor.count(&["{c:p2p:850001:850002}:cursors"]).await;
    let written = written.get("EVALSHA").copied().unwrap_or(0);
    let most = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    assert!((1..=most).contains(&written), "{written} in {:?}", begin.elapsed());
}
