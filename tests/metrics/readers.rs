//! Readers that are behind: hints, pulls, holes, repairs and resyncs.

use tidegate::proto::envelope::Payload;
use tidegate::proto::{Identify, Position, SyncReq};

use crate::common::payload::{frame, text};
use crate::common::{Client, Gateway, Options, Pair, Redis, secs};
use crate::scrape::{Metrics, Series};

const HINT_REPLAY: Series = "tidegate_conversation_hints_total{cause=replay}";
const HINT_GAP: Series = "tidegate_conversation_hints_total{cause=gap}";
const KNOWN: Series = "tidegate_copies_dropped_total{reason=known}";
const PULLS: Series = "tidegate_pulls_total{source=store}";
const HOLES: Series = "tidegate_delivery_holes_total";
const FILLED: Series = "tidegate_repairs_total{result=filled}";
const HINTED: Series = "tidegate_repairs_total{result=hinted}";
const FAILED: Series = "tidegate_repairs_total{result=failed}";
const OTHER_MESSAGE: Series = "tidegate_resyncs_total{reason=other_message}";
const BEYOND: Series = "tidegate_resyncs_total{reason=beyond_top}";
const TRIMMED: Series = "tidegate_resyncs_total{reason=trimmed}";
pub(crate) const BEHIND: &[Series] = &[HINT_REPLAY, KNOWN, PULLS, OTHER_MESSAGE, BEYOND, TRIMMED];
pub(crate) const HOLED: &[Series] = &[HOLES, FILLED, HINTED, FAILED, HINT_GAP];

const CHAT: &str = "p2p:42:43";

async fn resume(gateway: &Gateway, epoch: u64, seq: i64, server_msg_id: &str) -> Client {
    let (conversation_id, server_msg_id) = (CHAT.to_owned(), server_msg_id.to_owned());
    let have = vec![Position { conversation_id, epoch, seq, server_msg_id, ..Position::default() }];
    let mut client = Client::open(gateway, "/ws?user=43&device=phone&resume=1").await;
    client.send(Payload::Identify(Identify { have, ..Identify::default() })).await;
    client.expect_ready().await;
    client
}

/// Stores so many at once.
async fn store(phone: &mut Client, name: &str, count: usize) {
    for n in 0..count {
        phone.send_raw(frame(Payload::Send(text(CHAT, &format!("{name}-{n}"), "x")))).await;
    }
    for n in 0..count {
        phone.expect_stored(&format!("{name}-{n}")).await;
    }
}

#[tokio::test]
async fn what_a_returning_client_is_told_is_counted() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let first = phone.store_text(CHAT, "m-1", "x").await;
    resume(&gateway, 0, 1, "another").await.expect_error().await;
    resume(&gateway, 0, 9, &first.server_msg_id).await.expect_error().await;
    metrics.moved(&[OTHER_MESSAGE, BEYOND]).await;
    store(&mut phone, "many", 501).await;
    let mut behind = resume(&gateway, first.epoch, 1, &first.server_msg_id).await;
    behind.expect_hint(CHAT).await;
    metrics.moved(&[HINT_REPLAY]).await;
    let request = SyncReq { conversation_id: CHAT.to_owned(), from_seq: 2, ..SyncReq::default() };
    behind.sync(request).await;
    metrics.moved(&[PULLS]).await;
    let _: i64 = redis.query(&["XTRIM", "{c:p2p:42:43}:log", "MINID", "3"]).await;
    resume(&gateway, 7, 1, &first.server_msg_id).await.expect_error().await;
    metrics.moved(&[TRIMMED]).await;
    // Some arrive while the client is told of them.
    let mut round = 0;
    while metrics.grown(KNOWN).await == 0.0 {
        for n in 0..50 {
            phone.send_raw(frame(Payload::Send(text(CHAT, &format!("r-{round}-{n}"), "x")))).await;
        }
        resume(&gateway, 0, 0, "").await;
        for n in 0..50 {
            phone.expect_stored(&format!("r-{round}-{n}")).await;
        }
        round += 1;
        assert!(round < 50, "nothing ever crosses");
    }
    metrics.are_conserved().await;
}

#[tokio::test]
async fn holes_and_what_became_of_them_are_counted() {
    let Pair { redis, a, b } = Pair::start().await;
    let (at_a, at_b) = (Metrics::of(&a).await, Metrics::of(&b).await);
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    alice.store_text(CHAT, "m-1", "x").await;
    bob.expect_push().await;
    let may = async |rule: &str| {
        let _: String = redis.query(&["ACL", "SETUSER", "default", rule]).await;
    };
    let lost: Series = "tidegate_dropped_total{reason=bus_publish_failed}";
    // First, so that nobody who looks by himself meanwhile fills the hole.
    may("-xrange").await;
    may("-publish").await;
    alice.store_text(CHAT, "m-2", "lost").await;
    at_a.moved(&[lost]).await;
    // The next one shows the hole; the log cannot be read.
    may("+publish").await;
    alice.store_text(CHAT, "m-3", "x").await;
    at_b.moved(&[HOLES, FAILED]).await;
    may("+xrange").await;
    alice.store_text(CHAT, "m-4", "x").await;
    assert_eq!(bob.pull_from(CHAT, 2).await.len(), 3);
    // Some more, and it is read.
    may("-publish").await;
    alice.store_text(CHAT, "m-5", "lost").await;
    may("+publish").await;
    at_b.moved_within(&[FILLED], secs(10)).await;
    assert_eq!(bob.take("5", secs(5), |f| seq_of(f).filter(|seq| *seq == 5)).await, 5);
    // More than is filled in, found at once however long the storing takes.
    may("-publish").await;
    may("-xrange").await;
    store(&mut alice, "many", 501).await;
    may("+xrange").await;
    may("+publish").await;
    at_b.moved_within(&[HINTED, HINT_GAP], secs(10)).await;
    bob.expect_hint(CHAT).await;
    assert_eq!(bob.pull_from(CHAT, 6).await.len(), 501);
    at_b.are_conserved().await;
}

fn seq_of(frame: &crate::common::payload::Frame) -> Option<i64> {
    match frame {
        crate::common::payload::Frame::Envelope(envelope) => match &envelope.payload {
            Some(Payload::Push(push)) => Some(push.seq),
            _ => None,
        },
        _ => None,
    }
}
