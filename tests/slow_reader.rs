//! A socket that is not read for a while: it is told to pull instead of being
//! pushed to, and costs nobody else anything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "a panic is how a test says no"
)]

mod common;

use std::time::Instant;

use common::payload::{text_of, typing};
use common::{Client, Gateway, Options, secs};
use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Heartbeat, KickReason};

const BOB: i64 = 43;
/// The partners who write to Bob, and one who does so later.
const WRITERS: [i64; 3] = [42, 44, 45];
const LATER: i64 = 46;

fn chat(writer: i64) -> String {
    format!("p2p:{}:{}", writer.min(BOB), writer.max(BOB))
}

fn options() -> Options {
    Options::new().env("TIDEGATE_LIMITS_OUTBOX_BYTES", "262144")
}

async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = gateway.http().get("/metrics").await.success().text();
    let line = format!("{series} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |value| value.parse().unwrap())
}

async fn hinted(gateway: &Gateway) -> u64 {
    metric(gateway, "tidegate_conversation_hints_total{cause=\"slow_reader\"}").await
}

async fn connect_narrow(gateway: &Gateway, user: i64) -> Client {
    let mut client = Client::open_narrow(gateway, &format!("/ws?user={user}&device=phone")).await;
    client.expect_ready().await;
    client
}

/// The scene: one who does not read, his tablet that does, and writers.
struct Scene {
    gateway: Gateway,
    phone: Client,
    tablet: Client,
    writers: Vec<Client>,
    /// Of each conversation, how many messages there are.
    sent: [i64; 3],
}

impl Scene {
    async fn start() -> Self {
        let gateway = Gateway::start(options()).await;
        let tablet = Client::connect(&gateway, BOB, "tablet").await;
        let phone = connect_narrow(&gateway, BOB).await;
        let mut writers = Vec::new();
        for writer in WRITERS {
            writers.push(Client::connect(&gateway, writer, "phone").await);
        }
        Self { gateway, phone, tablet, writers, sent: [0; 3] }
    }

    /// One more message, which the tablet gets at once.
    async fn write(&mut self, writer: usize) {
        self.sent[writer] += 1;
        let (seq, conversation) = (self.sent[writer], chat(WRITERS[writer]));
        let text = format!("{seq} {}", "x".repeat(8_000));
        self.writers[writer].store_text(&conversation, &format!("m-{seq}"), &text).await;
        let push = self.tablet.expect_push().await;
        assert_eq!((push.conversation_id, push.seq), (conversation, seq), "in order, and at once");
    }

    /// Writes until every conversation is to be pulled.
    async fn fill(&mut self) {
        for round in 0..200 {
            for writer in 0..WRITERS.len() {
                self.write(writer).await;
                self.writers[writer].send(typing(&chat(WRITERS[writer]), true)).await;
            }
            if round % 5 == 4 && hinted(&self.gateway).await >= 3 {
                return;
            }
        }
        panic!("nothing ever waits");
    }

    /// What the phone has of a conversation once it has pulled it.
    async fn pull(&mut self, writer: usize, pushed: &[i64]) {
        let conversation = chat(WRITERS[writer]);
        let hint = self.phone.expect_hint(&conversation).await;
        assert!(hint.top_seq <= self.sent[writer]);
        let next = pushed.last().map_or(1, |last| last + 1);
        let pulled = self.phone.pull_from(&conversation, next).await;
        let has: Vec<i64> = pushed.iter().copied().chain(pulled.iter().map(|push| push.seq)).collect();
        assert_eq!(has, (1..=self.sent[writer]).collect::<Vec<_>>(), "{conversation}");
    }

    /// What of each conversation was pushed up to now, by the phone's clock.
    async fn pushed(&mut self) -> [Vec<i64>; 3] {
        self.phone.beat().await;
        let mut pushed = [const { Vec::new() }; 3];
        while let Some(push) = self.phone.take_push() {
            let writer = WRITERS.iter().position(|writer| chat(*writer) == push.conversation_id);
            pushed[writer.expect("one of ours")].push(push.seq);
        }
        pushed
    }
}

#[tokio::test]
async fn a_reader_that_pauses_gets_everything_and_keeps_its_socket() {
    let mut scene = Scene::start().await;
    scene.fill().await;
    assert!(
        metric(&scene.gateway, "tidegate_dropped_total{reason=\"ephemeral_slow_reader\"}").await > 0,
        "typing goes first"
    );

    // It reads again. What is to be pulled is not pushed.
    let pushed = scene.pushed().await;
    let replaced = metric(&scene.gateway, "tidegate_copies_replaced_by_hint_total").await;
    assert!(replaced > 0);
    scene.write(0).await;
    // Others are.
    let mut later = Client::connect(&scene.gateway, LATER, "phone").await;
    later.store_text(&chat(LATER), "m-1", "in between").await;
    let push = scene.phone.expect_push().await;
    assert_eq!((push.conversation_id.as_str(), text_of(&push)), (chat(LATER).as_str(), "in between"));
    scene.tablet.expect_push().await;

    // What has grown is named, once.
    for expected in [vec![(chat(WRITERS[0]), scene.sent[0])], vec![]] {
        scene.phone.send(Payload::Hb(Heartbeat::default())).await;
        let tops = scene
            .phone
            .expect("a HeartbeatAck", |payload| match payload {
                Payload::HbAck(ack) => Some(
                    ack.tops.iter().map(|top| (top.conversation_id.clone(), top.seq)).collect::<Vec<_>>(),
                ),
                _ => None,
            })
            .await;
        let grown: Vec<_> = tops.into_iter().filter(|(id, _)| *id == chat(WRITERS[0])).collect();
        assert_eq!(grown, expected);
    }

    for (writer, pushed) in pushed.iter().enumerate() {
        scene.pull(writer, pushed).await;
        // From here on it is pushed again, behind what was pulled.
        scene.write(writer).await;
        let push = scene.phone.expect_push().await;
        assert_eq!((push.conversation_id, push.seq), (chat(WRITERS[writer]), scene.sent[writer]));
    }
    assert_eq!(
        metric(&scene.gateway, "tidegate_connections_closed_total{reason=\"slow_consumer\"}").await,
        0
    );
}

#[tokio::test]
async fn half_a_minute_without_reading_is_no_reason_to_close() {
    let mut scene = Scene::start().await;
    scene.fill().await;
    let end = Instant::now() + secs(30);
    let mut writer = 0;
    while Instant::now() < end {
        // The tablet has each of them at once.
        scene.write(writer).await;
        writer = (writer + 1) % WRITERS.len();
        tokio::time::sleep(secs(1)).await;
    }
    let pushed = scene.pushed().await;
    for (writer, pushed) in pushed.iter().enumerate() {
        scene.pull(writer, pushed).await;
    }
}

#[tokio::test]
async fn a_reader_with_more_hints_than_fit_is_out_and_comes_back() {
    let options = Options::new()
        .env("TIDEGATE_LIMITS_OUTBOX_BYTES", "8192")
        .env("TIDEGATE_LIMITS_MAX_FRAME_BYTES", "8192");
    let gateway = Gateway::start(options).await;
    let mut phone = connect_narrow(&gateway, BOB).await;
    let mut neighbour = Client::connect(&gateway, 42, "phone").await;
    let send = |from: i64| {
        let http = gateway.http();
        async move {
            let (conversation, text) = (chat(from), "x".repeat(6_000));
            let message = json!({"conversationId": conversation, "clientMsgId": "m", "fromUserId": from, "textContent": text});
            http.post("/v1/messages", &message).await.success();
        }
    };
    let mut from = 1_000;
    while metric(&gateway, "tidegate_connections_closed_total{reason=\"slow_consumer\"}").await == 0 {
        for _ in 0..20 {
            send(from).await;
            from += 1;
        }
        assert!(from < 3_000, "it is kept for ever");
    }
    neighbour.store_text("p2p:42:47", "m-1", "nobody waits for it").await;
    let (kick, code) = phone.expect_kick(KickReason::SlowConsumer).await;
    assert!(kick.may_reconnect);
    assert_eq!(code, Some(4011));
    let mut phone = Client::connect(&gateway, BOB, "phone").await;
    let conversation = chat(1_000);
    assert_eq!(phone.pull_from(&conversation, 1).await.len(), 1);
    send(from).await;
    assert_eq!(phone.expect_push().await.conversation_id, chat(from));
}
