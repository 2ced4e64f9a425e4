//! A client that comes back and says what it has.

mod common;

use common::payload::text_of;
use common::{Client, Gateway, Options};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{ErrorCode, Identify, Position, SyncReq};

const CHAT: &str = "p2p:42:43";

fn have(seq: i64, server_msg_id: &str) -> Payload {
    let position = Position {
        conversation_id: CHAT.to_owned(),
        seq,
        server_msg_id: server_msg_id.to_owned(),
        ..Position::default()
    };
    Payload::Identify(Identify { have: vec![position], ..Identify::default() })
}

async fn resume(gateway: &Gateway, seq: i64, server_msg_id: &str) -> Client {
    let mut client = Client::open(gateway, "/ws?user=43&device=phone&resume=1").await;
    client.send(have(seq, server_msg_id)).await;
    client.expect_ready().await;
    client
}

#[tokio::test]
async fn what_was_missed_is_replayed_then_live() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let first = alice.store_text(CHAT, "m-1", "one").await;
    alice.store_text(CHAT, "m-2", "two").await;
    alice.store_text(CHAT, "m-3", "three").await;

    let mut bob = resume(&gateway, first.seq, &first.server_msg_id).await;
    let replayed = bob
        .expect("the replay", |payload| match payload {
            Payload::PushBatch(batch) if batch.replay && !batch.more => Some(batch.clone()),
            _ => None,
        })
        .await;
    let texts: Vec<_> = replayed.messages.iter().map(text_of).collect();
    assert_eq!((replayed.conversation_id.as_str(), texts), (CHAT, vec!["two", "three"]));
    alice.store_text(CHAT, "m-4", "four").await;
    assert_eq!(text_of(&bob.expect_push().await), "four");
}

#[tokio::test]
async fn a_position_of_another_history_is_told_apart() {
    let gateway = Gateway::start(Options::new()).await;
    let mut alice = Client::connect(&gateway, 42, "phone").await;
    let top = alice.store_text(CHAT, "m-1", "one").await;
    for (seq, id) in [(top.seq, "not-this-one"), (top.seq + 7, top.server_msg_id.as_str())] {
        let mut bob = resume(&gateway, seq, id).await;
        let error = bob.expect_error().await;
        assert_eq!(error.code(), ErrorCode::ResyncRequired);
        let current = error.current.expect("where it stands now");
        assert_eq!((current.conversation_id.as_str(), current.seq), (CHAT, top.seq));
    }
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
