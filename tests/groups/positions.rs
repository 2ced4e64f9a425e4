//! Where members stand: lists, resumes, receipts.

use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{ConversationsReq, ErrorCode, Identify, Position};

use crate::common::payload::{delivered, receipt, text_of};
use crate::common::{Client, Gateway};
use crate::{TEAM, expect_silence, expect_texts, make_team, put_member, remove_member, start_pair};

fn standing(positions: &[Position]) -> Option<(i64, i64, u32)> {
    let found = positions.iter().find(|position| position.conversation_id == TEAM)?;
    Some((found.seq, found.read_seq, found.unread))
}

async fn listed(client: &mut Client) -> Option<(i64, i64, u32)> {
    client.send(Payload::Conversations(ConversationsReq::default())).await;
    let pick = |p: &Payload| {
        if let Payload::ConversationsResp(page) = p { Some(page.conversations.clone()) } else { None }
    };
    standing(&client.expect("ConversationsResp", pick).await)
}

#[tokio::test]
async fn a_group_is_listed_with_what_its_member_has_not_read() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    for n in 1..=3 {
        one.store_text(TEAM, &format!("m-{n}"), "hello").await;
    }
    put_member(&http, 3, &json!({})).await;
    put_member(&http, 4, &json!({"history": "full"})).await;
    one.store_text(TEAM, "m-4", "hello").await;
    for (user, unread) in [(2, 4), (3, 1), (4, 4)] {
        let mut client = Client::connect(&pair.b, user, "phone").await;
        assert_eq!(standing(&client.ready.conversations), Some((4, 0, unread)), "{user}");
        assert_eq!(listed(&mut client).await, Some((4, 0, unread)), "{user}");
        client.send(receipt(TEAM, 4)).await;
        let read = |p: &Payload| matches!(p, Payload::Read(read) if read.by_user_id == user).then_some(());
        one.expect("his Receipt", read).await;
        assert_eq!(listed(&mut client).await, Some((4, 4, 0)), "{user}");
    }
    remove_member(&http, 3).await;
    let mut three = Client::connect(&pair.b, 3, "phone").await;
    assert_eq!(standing(&three.ready.conversations), None);
    assert_eq!(listed(&mut three).await, None);
}

async fn resume(gateway: &Gateway, user: i64, seq: i64, server_msg_id: &str) -> Client {
    let mut client = Client::open(gateway, &format!("/ws?user={user}&device=phone&resume=1")).await;
    let position = Position {
        conversation_id: TEAM.to_owned(),
        seq,
        server_msg_id: server_msg_id.to_owned(),
        ..Position::default()
    };
    client.send(Payload::Identify(Identify { have: vec![position], ..Identify::default() })).await;
    client.expect_ready().await;
    client
}

async fn expect_replay(client: &mut Client) -> Vec<String> {
    let pick = |p: &Payload| match p {
        Payload::PushBatch(batch) if batch.replay && !batch.more => Some(batch.clone()),
        _ => None,
    };
    let batch = client.expect("the replay", pick).await;
    assert_eq!(batch.conversation_id, TEAM);
    batch.messages.iter().map(|message| text_of(message).to_owned()).collect()
}

#[tokio::test]
async fn a_member_resumes_on_either_gateway() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let first = one.store_text(TEAM, "m-1", "one").await;
    put_member(&http, 3, &json!({})).await;
    one.store_text(TEAM, "m-2", "two").await;
    let last = one.store_text(TEAM, "m-3", "three").await;
    for gateway in [&pair.a, &pair.b] {
        let mut two = resume(gateway, 2, first.seq, &first.server_msg_id).await;
        assert_eq!(expect_replay(&mut two).await, ["two", "three"]);
        // What he has of it from before he joined is nothing.
        let mut three = resume(gateway, 3, 0, "").await;
        assert_eq!(expect_replay(&mut three).await, ["two", "three"]);
        let mut whole = resume(gateway, 2, last.seq, &last.server_msg_id).await;
        assert_eq!(expect_replay(&mut whole).await, [""; 0]);
        let mut stranger = resume(gateway, 9, first.seq, &first.server_msg_id).await;
        assert_eq!(stranger.expect_error().await.code(), ErrorCode::NotFound);
        let mut forked = resume(gateway, 2, first.seq, "another").await;
        assert_eq!(forked.expect_error().await.code(), ErrorCode::ResyncRequired);
    }
    let mut two = resume(&pair.b, 2, first.seq, &first.server_msg_id).await;
    let mut three = resume(&pair.b, 3, 0, "").await;
    one.store_text(TEAM, "m-4", "four").await;
    for client in [&mut two, &mut three] {
        expect_replay(client).await;
        expect_texts(client, &["four"]).await;
        expect_silence(client).await;
    }
}

/// What `client` is told of user 2: received up to, read up to.
async fn told_of_two(client: &mut Client) -> (Option<i64>, Option<i64>) {
    client.beat().await;
    let mut told = (None, None);
    for payload in client.drain() {
        match payload {
            Payload::Ack(ack) if ack.by_user_id == 2 => told.0 = Some(ack.seq),
            Payload::Read(read) if read.by_user_id == 2 => told.1 = Some(read.read_seq),
            _ => {}
        }
    }
    told
}

#[tokio::test]
async fn receipts_are_told_in_small_groups_only() {
    let pair = start_pair().await;
    let http = pair.a.http();
    for (size, told) in [(200, (Some(1), Some(1))), (201, (None, None))] {
        make_team(&http, &(1..=size).collect::<Vec<_>>()).await;
        let mut one = Client::connect(&pair.a, 1, "phone").await;
        let mut two = Client::connect(&pair.b, 2, "phone").await;
        let mut own = Client::connect(&pair.a, 2, "laptop").await;
        let mut three = Client::connect(&pair.b, 3, "phone").await;
        one.store_text(TEAM, "m-1", "hello").await;
        expect_texts(&mut two, &["hello"]).await;
        two.send(delivered(TEAM, 1)).await;
        two.send(receipt(TEAM, 1)).await;
        // His own other device learns it in any case, and last.
        let read =
            |p: &Payload| matches!(p, Payload::Read(r) if r.by_user_id == 2 && r.read_seq == 1).then_some(());
        own.expect("the Receipt", read).await;
        if told.1.is_some() {
            for client in [&mut one, &mut three] {
                assert_eq!(client.expect_delivered(TEAM, 1).await.by_user_id, 2);
                client.expect("the Receipt", read).await;
            }
        } else {
            for client in [&mut one, &mut three] {
                assert_eq!(told_of_two(client).await, told);
            }
        }
        crate::delete_team(&http).await;
    }
}
