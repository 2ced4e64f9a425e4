//! A client that comes back and says what it has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod common;

use std::time::Duration;

use common::payload::{frame, text, text_of};
use common::{Client, Gateway, Options, Redis, SOON, eventually, secs};
use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Ack, ErrorCode, Identify, KickReason, Position, PushBatch, SyncReq};

const CHAT: &str = "p2p:42:43";
const TARGET: &str = "/ws?user=43&device=phone&resume=1";

fn position(conversation: &str, seq: i64, server_msg_id: &str) -> Position {
    let (conversation_id, server_msg_id) = (conversation.to_owned(), server_msg_id.to_owned());
    Position { conversation_id, seq, server_msg_id, ..Position::default() }
}

/// What a device has whose last message was acknowledged so.
fn behind(ack: &Ack) -> Position {
    Position { epoch: ack.epoch, ..position(&ack.conversation_id, ack.seq, &ack.server_msg_id) }
}

async fn resume_with(gateway: &Gateway, have: Vec<Position>) -> Client {
    let mut client = Client::open(gateway, TARGET).await;
    client.send(Payload::Identify(Identify { have, ..Identify::default() })).await;
    client.expect_ready().await;
    client
}

async fn resume(gateway: &Gateway, seq: i64, server_msg_id: &str) -> Client {
    resume_with(gateway, vec![position(CHAT, seq, server_msg_id)]).await
}

async fn expect_replay(client: &mut Client, conversation: &str) -> PushBatch {
    client
        .expect(&format!("the replay of {conversation}"), |payload| match payload {
            Payload::PushBatch(batch) if batch.conversation_id == conversation => {
                assert!(batch.replay && !batch.more);
                Some(batch.clone())
            }
            _ => None,
        })
        .await
}

fn seqs(batch: &PushBatch) -> Vec<i64> {
    batch.messages.iter().map(|message| message.seq).collect()
}

/// Stores so many, numbered from `first`; returns their acks.
async fn store(sender: &mut Client, conversation: &str, first: usize, count: usize, size: usize) -> Vec<Ack> {
    let send = |n| frame(Payload::Send(text(conversation, &format!("m-{n}"), &"x".repeat(size))));
    for chunk in (first..first + count).collect::<Vec<_>>().chunks(100) {
        for n in chunk {
            sender.send_raw(send(*n)).await;
        }
    }
    let mut acks = Vec::new();
    for n in first..first + count {
        acks.push(sender.expect_stored(&format!("m-{n}")).await);
    }
    acks
}

#[tokio::test]
async fn what_was_missed_is_replayed_then_live() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let first = alice.store_text(CHAT, "m-1", "one").await;
    alice.store_text(CHAT, "m-2", "two").await;
    alice.store_text(CHAT, "m-3", "three").await;

    let mut bob = resume(&gateway, first.seq, &first.server_msg_id).await;
    let replayed = expect_replay(&mut bob, CHAT).await;
    let texts: Vec<_> = replayed.messages.iter().map(text_of).collect();
    assert_eq!(texts, ["two", "three"]);
    alice.store_text(CHAT, "m-4", "four").await;
    assert_eq!(text_of(&bob.expect_push().await), "four");
}

#[tokio::test]
async fn a_position_is_proved_by_its_message() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let acks = store(&mut alice, CHAT, 1, 3, 1).await;
    let (first, top) = (&acks[0], &acks[2]);
    // Whatever the epoch says.
    for epoch in [0, 1, first.epoch, u64::MAX] {
        let mut bob = resume_with(&gateway, vec![Position { epoch, ..behind(first) }]).await;
        assert_eq!(seqs(&expect_replay(&mut bob, CHAT).await), [2, 3], "{epoch}");
    }
    for (seq, id) in [(top.seq, "not-this-one"), (1, &top.server_msg_id), (9, &top.server_msg_id)] {
        let have = Position { epoch: top.epoch, ..position(CHAT, seq, id) };
        let mut bob = resume_with(&gateway, vec![have]).await;
        let error = bob.expect_error().await;
        assert_eq!((error.code(), error.conversation_id.as_str()), (ErrorCode::ResyncRequired, CHAT));
        let current = error.current.expect("where it stands now");
        let stands = (current.conversation_id, current.epoch, current.seq, current.server_msg_id);
        assert_eq!(stands, (CHAT.to_owned(), top.epoch, top.seq, top.server_msg_id.clone()));
    }
    // It goes on behind that.
    let mut bob = resume(&gateway, 9, "").await;
    bob.expect_error().await;
    alice.store_text(CHAT, "m-4", "four").await;
    assert_eq!(bob.expect_push().await.seq, 4);
}

#[tokio::test]
async fn every_position_is_answered_for_itself() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    store(&mut alice, CHAT, 1, 2, 1).await;
    let have = [(CHAT, 0), (CHAT, 1), ("p2p:1:2", 0), ("p2p:43:44", -1), ("p2p:43:45", 0), ("nonsense", 0)];
    let have = have.map(|(conversation, seq)| position(conversation, seq, ""));
    let mut bob = resume_with(&gateway, have.into()).await;
    bob.beat().await;
    let answers = bob.drain().into_iter().map(|payload| match payload {
        Payload::PushBatch(batch) => (batch.conversation_id, Ok(batch.messages.len())),
        Payload::Error(error) => (error.conversation_id.clone(), Err(error.code())),
        other => panic!("{other:?}"),
    });
    let expected = [
        (CHAT, Ok(2)),
        (CHAT, Err(ErrorCode::Invalid)),
        ("p2p:1:2", Err(ErrorCode::NotFound)),
        ("p2p:43:44", Err(ErrorCode::Invalid)),
        ("p2p:43:45", Ok(0)),
        ("nonsense", Err(ErrorCode::Invalid)),
    ];
    assert_eq!(answers.collect::<Vec<_>>(), expected.map(|(id, answer)| (id.to_owned(), answer)));
}

#[tokio::test]
async fn nothing_said_is_nothing_replayed_and_too_much_is_pulled() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    store(&mut alice, CHAT, 1, 2, 1).await;
    let mut bob = resume_with(&gateway, Vec::new()).await;
    alice.store_text(CHAT, "m-3", "three").await;
    assert_eq!(bob.expect_push().await.seq, 3);
    assert_eq!(bob.drain(), []);

    let others = (1_000..1_204).map(|peer| position(&format!("p2p:43:{peer}"), 0, ""));
    let mut bob = resume_with(&gateway, others.chain([position(CHAT, 0, "")]).collect()).await;
    bob.beat().await;
    assert_eq!(bob.drain().len(), 200, "the first 200 positions");
    assert_eq!(bob.pull_from(CHAT, 1).await.len(), 3);
    alice.store_text(CHAT, "m-4", "four").await;
    assert_eq!(bob.expect_push().await.seq, 4);
}

#[tokio::test]
async fn more_than_is_replayed_is_pulled_while_others_go_on() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let mut carol = Client::connect(&gateway, 44, "phone").await;
    let other = "p2p:43:44";
    store(&mut alice, CHAT, 1, 501, 1).await;
    // The other one is few messages, and large.
    store(&mut carol, other, 1, 20, 60_000).await;
    let mut bob = resume_with(&gateway, vec![position(CHAT, 0, ""), position(other, 0, "")]).await;
    let hint = bob.expect_hint(CHAT).await;
    assert_eq!((hint.top_seq, hint.pull_delay_ms), (501, 0));
    assert_eq!(bob.expect_hint(other).await.top_seq, 20);
    // Nothing of these is pushed; a third one is.
    alice.store_text(CHAT, "m-502", "not yet").await;
    let mut dave = Client::connect(&gateway, 45, "phone").await;
    dave.store_text("p2p:43:45", "m-1", "in between").await;
    assert_eq!(text_of(&bob.expect_push().await), "in between");
    for (conversation, top) in [(CHAT, 502), (other, 20)] {
        let pulled = bob.pull_from(conversation, 1).await;
        assert_eq!(pulled.iter().map(|push| push.seq).collect::<Vec<_>>(), (1..=top).collect::<Vec<_>>());
    }
    alice.store_text(CHAT, "m-503", "live").await;
    assert_eq!(bob.expect_push().await.seq, 503);
    // 500 are replayed.
    let mut bob = resume(&gateway, 3, "").await;
    assert_eq!(bob.expect_error().await.code(), ErrorCode::ResyncRequired, "3 is not proved");
    let third =
        bob.sync(SyncReq { conversation_id: CHAT.to_owned(), from_seq: 3, limit: 1, ..SyncReq::default() });
    let third = third.await.messages.remove(0);
    let mut bob = resume(&gateway, 3, &third.server_msg_id).await;
    assert_eq!(seqs(&expect_replay(&mut bob, CHAT).await), (4..=503).collect::<Vec<_>>());
}

#[tokio::test]
async fn replay_comes_before_live_and_nothing_between() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let mut last = alice.store_text(CHAT, "m-0", "x").await;
    for round in 0..20 {
        // Some are on their way while he comes back.
        for n in 0..20 {
            alice.send_text(CHAT, &format!("m-{round}-{n}"), "x").await;
        }
        let mut bob = resume(&gateway, last.seq, &last.server_msg_id).await;
        let replay = expect_replay(&mut bob, CHAT).await;
        let mut got = seqs(&replay);
        while got.len() < 20 {
            got.push(bob.expect_push().await.seq);
        }
        assert_eq!(got, (last.seq + 1..=last.seq + 20).collect::<Vec<_>>());
        last = alice.expect_stored(&format!("m-{round}-19")).await;
    }
}

#[tokio::test]
async fn of_two_that_resume_at_once_one_stays_and_has_all() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let first = alice.store_text(CHAT, "m-1", "one").await;
    alice.store_text(CHAT, "m-2", "two").await;
    for _ in 0..5 {
        let one = || resume(&gateway, first.seq, &first.server_msg_id);
        let (mut a, mut b) = tokio::join!(one(), one());
        let (a_ended, b_ended) = tokio::join!(ends(&mut a), ends(&mut b));
        assert!(a_ended != b_ended, "one of the two is out: {a_ended} {b_ended}");
        let mut left = if a_ended { b } else { a };
        assert_eq!(seqs(&expect_replay(&mut left, CHAT).await), [2]);
    }
}

/// Whether a connection is told that it was replaced.
async fn ends(client: &mut Client) -> bool {
    let replaced = client.expect_kick(KickReason::Replaced);
    match tokio::time::timeout(secs(1), replaced).await {
        Ok((_, code)) => {
            assert_eq!(code, Some(4009));
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_device_resumes_elsewhere_whether_its_gateway_lives_or_not() {
    let redis = Redis::start().await;
    let (a, mut b) = tokio::join!(
        Gateway::start(Options::cluster(&redis, "gw-a")),
        Gateway::start(Options::cluster(&redis, "gw-b"))
    );
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut old = Client::connect(&b, 43, "phone").await;
    let first = alice.store_text(CHAT, "m-1", "one").await;
    old.expect_push().await;
    alice.store_text(CHAT, "m-2", "two").await;
    let mut moved = resume_with(&a, vec![behind(&first)]).await;
    assert_eq!(seqs(&expect_replay(&mut moved, CHAT).await), [2]);
    let (kick, code) = old.expect_kick(KickReason::Replaced).await;
    assert!(!kick.may_reconnect);
    assert_eq!(code, Some(4009));

    // And back, to one that is killed.
    let mut back = resume_with(&b, vec![behind(&first)]).await;
    assert_eq!(seqs(&expect_replay(&mut back, CHAT).await), [2]);
    moved.expect_kick(KickReason::Replaced).await;
    let third = alice.store_text(CHAT, "m-3", "three").await;
    assert_eq!(back.expect_push().await.seq, 3);
    b.kill();
    store(&mut alice, CHAT, 4, 30, 10).await;
    let mut bob = resume_with(&a, vec![behind(&third)]).await;
    assert_eq!(seqs(&expect_replay(&mut bob, CHAT).await), (4..=33).collect::<Vec<_>>());
    alice.store_text(CHAT, "m-34", "live").await;
    assert_eq!(bob.expect_push().await.seq, 34);
    assert_eq!(bob.drain(), [], "exactly that");
}

#[tokio::test]
async fn what_is_trimmed_is_told_and_proved_by_its_epoch() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let acks = store(&mut alice, CHAT, 1, 5, 1).await;
    let _: i64 = redis.query(&["XTRIM", "{c:p2p:42:43}:log", "MINID", "4"]).await;
    // Nothing of what is behind it is missing.
    let mut bob = resume_with(&gateway, vec![behind(&acks[2])]).await;
    assert_eq!(seqs(&expect_replay(&mut bob, CHAT).await), [4, 5]);
    // Something is: it is pulled, and the answer says what is there.
    let mut bob = resume_with(&gateway, vec![behind(&acks[1])]).await;
    assert_eq!(bob.expect_hint(CHAT).await.top_seq, 5);
    let proof = behind(&acks[1]);
    let request = SyncReq {
        conversation_id: CHAT.to_owned(),
        from_seq: 3,
        epoch: proof.epoch,
        server_msg_id: proof.server_msg_id.clone(),
        ..SyncReq::default()
    };
    let range = bob.sync(request.clone()).await;
    assert_eq!((range.first_available_seq, range.messages.len(), range.has_more), (4, 2, false));
    alice.store_text(CHAT, "m-6", "six").await;
    assert_eq!(bob.expect_push().await.seq, 6);
    // Of another epoch nothing is proved any more.
    bob.send(Payload::Sync(SyncReq { request_id: "r".to_owned(), epoch: 7, ..request })).await;
    let error = bob.expect_error().await;
    assert_eq!((error.code(), error.ref_request_id.as_str()), (ErrorCode::ResyncRequired, "r"));
    let mut bob = resume_with(&gateway, vec![Position { epoch: 7, ..proof }]).await;
    assert_eq!(bob.expect_error().await.code(), ErrorCode::ResyncRequired);
}

#[tokio::test]
async fn retention_trims_and_says_so() {
    let redis = Redis::start().await;
    let options = Options::cluster(&redis, "gw-a").env("TIDEGATE_RETENTION_P2P_COUNT", "3");
    let gateway = Gateway::start(options).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let acks = store(&mut alice, CHAT, 1, 10, 1).await;
    eventually("the log is trimmed", secs(90), || async {
        (redis.query::<i64>(&["XLEN", "{c:p2p:42:43}:log"]).await == 3).then_some(())
    })
    .await;
    let mut bob = resume_with(&gateway, vec![behind(&acks[0])]).await;
    bob.expect_hint(CHAT).await;
    let pulled = bob.pull_from(CHAT, 2).await;
    assert_eq!(pulled.iter().map(|push| push.seq).collect::<Vec<_>>(), [8, 9, 10]);
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_again_later() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let acks = store(&mut alice, CHAT, 1, 3, 1).await;
    redis.pause();
    let mut bob = resume_with(&gateway, vec![behind(&acks[0])]).await;
    let error = bob.expect_error().await;
    assert_eq!((error.code(), error.conversation_id.as_str()), (ErrorCode::RetryLater, CHAT));
    assert!(bob.ready.has_more, "unknown is not the same as none");
    redis.resume();
    let request = SyncReq { conversation_id: CHAT.to_owned(), from_seq: 2, ..SyncReq::default() };
    let mut tries = 0;
    let range = loop {
        let request_id = format!("try-{tries}");
        tries += 1;
        bob.send(Payload::Sync(SyncReq { request_id: request_id.clone(), ..request.clone() })).await;
        let answer = bob.expect("an answer", |payload| match payload {
            Payload::SyncResp(range) if range.request_id == request_id => Some(Ok(range.clone())),
            Payload::Error(error) if error.ref_request_id == request_id => Some(Err(error.code())),
            _ => None,
        });
        match answer.await {
            Ok(range) => break range,
            Err(code) => assert_eq!(code, ErrorCode::RetryLater),
        }
        assert!(tries < 100);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(range.messages.len(), 2);
    common::within("a message is stored again", SOON, async {
        alice.send_text(CHAT, "m-4", "four").await;
        while alice.expect_ack("m-4").await.seq == 0 {
            alice.send_text(CHAT, "m-4", "four").await;
        }
    })
    .await;
    assert_eq!(bob.expect_push().await.seq, 4);
}

#[tokio::test]
async fn nobody_is_given_what_was_before_him() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let group = json!({"id": "g:team", "members": [42], "history": "since_joining"});
    gateway.http().post("/v1/conversations", &group).await.success();
    store(&mut alice, "g:team", 1, 3, 1).await;
    let member = "/v1/conversations/g:team/members/43";
    gateway.http().send(hyper::Method::PUT, member, "{}".into()).await.success();
    let mut bob = resume_with(&gateway, vec![position("g:team", 0, "")]).await;
    assert!(expect_replay(&mut bob, "g:team").await.messages.is_empty());
    alice.store_text("g:team", "m-4", "four").await;
    assert_eq!(bob.expect_push().await.seq, 4);
    bob.beat().await;
    assert_eq!(bob.drain(), []);
}

#[tokio::test]
async fn a_range_is_pulled_in_both_directions() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    for n in 1..=5 {
        alice.store_text(CHAT, &format!("m-{n}"), &n.to_string()).await;
    }
    let mut bob = Client::connect(&gateway, 43, "phone").await;
    for (from_seq, direction, expected, more) in
        [(2, 0, vec![2, 3, 4], true), (4, 0, vec![4, 5], false), (0, 1, vec![5, 4, 3], true)]
    {
        let request = SyncReq {
            request_id: format!("r-{from_seq}"),
            conversation_id: CHAT.to_owned(),
            from_seq,
            limit: 3,
            direction,
            ..SyncReq::default()
        };
        bob.send(Payload::Sync(request)).await;
        let answer = bob
            .expect("the range", |payload| match payload {
                Payload::SyncResp(answer) if answer.request_id == format!("r-{from_seq}") => {
                    Some(answer.clone())
                }
                _ => None,
            })
            .await;
        let seqs: Vec<i64> = answer.messages.iter().map(|message| message.seq).collect();
        assert_eq!((seqs, answer.has_more, answer.top_seq), (expected, more, 5));
    }
    let mut eve = Client::connect(&gateway, 99, "phone").await;
    eve.send(Payload::Sync(SyncReq { conversation_id: CHAT.to_owned(), ..SyncReq::default() })).await;
    assert_eq!(eve.expect_error().await.code(), ErrorCode::NotFound);
}
