//! Members who come and go while messages flow.

use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{ConversationChange, ErrorCode, SyncReq};

use crate::common::payload::typing;
use crate::common::{Client, eventually, secs};
use crate::{
    TEAM, audience, connect_team, delete_team, expect_event, expect_silence, expect_texts, follow, make_team,
    metric_reaches, pull, put_member, remove_member, start_pair,
};

/// Neither sends, nor types, nor reads.
async fn expect_stranger(client: &mut Client, id: &str) {
    client.send_text(TEAM, id, "let me in").await;
    assert_eq!(client.expect_failed(id).await, ErrorCode::NotFound);
    client.send(typing(TEAM, true)).await;
    assert_eq!(client.expect_error().await.code(), ErrorCode::NotFound);
    client.send(Payload::Sync(SyncReq { conversation_id: TEAM.to_owned(), ..SyncReq::default() })).await;
    assert_eq!(client.expect_error().await.code(), ErrorCode::NotFound);
    expect_silence(client).await;
}

#[tokio::test]
async fn whoever_joins_gets_what_comes_after() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut late = Client::connect(&pair.b, 2, "phone").await;
    let mut full = Client::connect(&pair.b, 3, "phone").await;
    one.store_text(TEAM, "m-1", "one").await;
    one.store_text(TEAM, "m-2", "two").await;
    put_member(&http, 2, &json!({})).await;
    put_member(&http, 3, &json!({"history": "full"})).await;
    assert_eq!(expect_event(&mut late, ConversationChange::Joined, 2).await.since_seq, 2);
    assert_eq!(expect_event(&mut full, ConversationChange::Joined, 3).await.since_seq, 0);
    expect_event(&mut one, ConversationChange::Joined, 3).await;
    one.store_text(TEAM, "m-3", "three").await;
    expect_texts(&mut late, &["three"]).await;
    expect_silence(&mut late).await;
    let seqs = |page: tidegate::proto::SyncResp| page.messages.iter().map(|m| m.seq).collect::<Vec<_>>();
    assert_eq!(seqs(pull(&mut late, 1).await), [3]);
    // There is something for him already, and he is told to come for it.
    assert_eq!(follow(&mut full, 0, 3).await, 1);
    expect_silence(&mut full).await;
    late.store_text(TEAM, "m-4", "four").await;
    for client in [&mut one, &mut full] {
        expect_texts(client, &["four"]).await;
    }
}

#[tokio::test]
async fn members_who_join_while_messages_flow_miss_none() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut newcomers = Vec::new();
    for user in 2..12 {
        newcomers.push(Client::connect(&pair.b, user, "phone").await);
    }
    let mut sent = 0;
    for user in 2..12 {
        let change = json!({});
        let (reply, ()) = tokio::join!(put_member(&http, user, &change), async {
            for _ in 0..10 {
                sent += 1;
                one.send_text(TEAM, &format!("m-{sent}"), "hello").await;
            }
        });
        let since = reply.json()["sinceSeq"].as_i64().unwrap();
        assert!(since <= sent);
    }
    for n in 1..=sent {
        one.expect_stored(&format!("m-{n}")).await;
    }
    for (client, user) in newcomers.iter_mut().zip(2..) {
        let since = expect_event(client, ConversationChange::Joined, user).await.since_seq;
        follow(client, since, sent).await;
        expect_silence(client).await;
    }
}

#[tokio::test]
async fn whoever_is_removed_is_out_wholly() {
    let pair = start_pair().await;
    let http = pair.a.http();
    let [mut one, mut two, mut three] = connect_team(&pair).await;
    one.store_text(TEAM, "m-1", "one").await;
    for client in [&mut two, &mut three] {
        expect_texts(client, &["one"]).await;
    }
    remove_member(&http, 2).await;
    for client in [&mut one, &mut two, &mut three] {
        expect_event(client, ConversationChange::Removed, 2).await;
    }
    one.store_text(TEAM, "m-2", "two").await;
    expect_texts(&mut three, &["two"]).await;
    expect_stranger(&mut two, "x-1").await;
    // Again in, it is as if he had never been here before.
    put_member(&http, 2, &json!({})).await;
    assert_eq!(expect_event(&mut two, ConversationChange::Joined, 2).await.since_seq, 2);
    one.store_text(TEAM, "m-3", "three").await;
    for client in [&mut two, &mut three] {
        expect_texts(client, &["three"]).await;
        expect_silence(client).await;
    }
}

#[tokio::test]
async fn a_removal_nobody_was_told_of_is_found_by_the_next_message() {
    let pair = start_pair().await;
    let http = pair.a.http();
    let [mut one, mut two, mut three] = connect_team(&pair).await;
    one.store_text(TEAM, "m-0", "zero").await;
    for client in [&mut two, &mut three] {
        expect_texts(client, &["zero"]).await;
    }
    for round in 0..3 {
        pair.may_publish(false).await;
        remove_member(&http, 2).await;
        metric_reaches(&pair.a, "tidegate_dropped_total{reason=\"bus_publish_failed\"}", round + 1).await;
        pair.may_publish(true).await;
        let text = format!("text {round}");
        one.store_text(TEAM, &format!("m-{round}-a"), &text).await;
        expect_texts(&mut three, &[&text]).await;
        expect_event(&mut two, ConversationChange::Removed, 2).await;
        expect_stranger(&mut two, &format!("x-{round}")).await;
        put_member(&http, 2, &json!({})).await;
        expect_event(&mut two, ConversationChange::Joined, 2).await;
        one.store_text(TEAM, &format!("m-{round}-b"), &text).await;
        for client in [&mut two, &mut three] {
            expect_texts(client, &[&text]).await;
        }
    }
    metric_reaches(&pair.b, "tidegate_group_reloads_total", 1).await;
}

#[tokio::test]
async fn a_removal_nobody_was_told_of_is_found_without_a_message_too() {
    let pair = start_pair().await;
    let http = pair.a.http();
    let [mut one, mut two, mut three] = connect_team(&pair).await;
    one.store_text(TEAM, "m-0", "zero").await;
    expect_texts(&mut two, &["zero"]).await;
    pair.may_publish(false).await;
    remove_member(&http, 2).await;
    metric_reaches(&pair.a, "tidegate_dropped_total{reason=\"bus_publish_failed\"}", 1).await;
    pair.may_publish(true).await;
    // Sent again and again until the gateway knows better.
    let end = std::time::Instant::now() + secs(15);
    loop {
        two.send(typing(TEAM, true)).await;
        two.beat().await;
        let refused = |p: &Payload| matches!(p, Payload::Error(e) if e.code() == ErrorCode::NotFound);
        if two.drain().iter().any(refused) {
            break;
        }
        assert!(std::time::Instant::now() < end, "he still types there");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    one.store_text(TEAM, "m-1", "one").await;
    expect_texts(&mut three, &["zero", "one"]).await;
    expect_stranger(&mut two, "x-1").await;
}

#[tokio::test]
async fn whoever_is_muted_may_read() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    put_member(&http, 2, &json!({"muteUntil": i64::MAX})).await;
    expect_event(&mut two, ConversationChange::Muted, 2).await;
    two.send_text(TEAM, "x-1", "hear me").await;
    assert_eq!(two.expect_failed("x-1").await, ErrorCode::Forbidden);
    one.store_text(TEAM, "m-1", "shh").await;
    expect_texts(&mut two, &["shh"]).await;
    put_member(&http, 2, &json!({"muteUntil": 0})).await;
    two.store_text(TEAM, "x-1", "hear me").await;
    expect_texts(&mut one, &["hear me"]).await;
}

#[tokio::test]
async fn a_group_that_is_deleted_is_gone_and_another_may_take_its_name() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    one.store_text(TEAM, "m-1", "first").await;
    expect_texts(&mut two, &["first"]).await;
    delete_team(&http).await;
    for client in [&mut one, &mut two] {
        expect_event(client, ConversationChange::Deleted, 0).await;
        expect_stranger(client, "x-1").await;
    }
    make_team(&http, &[1, 2]).await;
    for (client, user) in [(&mut one, 1), (&mut two, 2)] {
        expect_event(client, ConversationChange::Joined, user).await;
    }
    assert_eq!(two.store_text(TEAM, "m-1", "second").await.seq, 1);
    expect_texts(&mut one, &["second"]).await;
    let page = pull(&mut two, 1).await;
    assert_eq!(page.messages.len(), 1, "nothing of the first one");
    expect_silence(&mut one).await;
}

#[tokio::test]
async fn members_of_a_group_that_was_deleted_in_silence_are_none_of_the_next_one() {
    let pair = start_pair().await;
    let http = pair.a.http();
    make_team(&http, &[1, 2]).await;
    for user in 10..15 {
        // Its count of changes is larger than that of a new one.
        put_member(&http, user, &json!({})).await;
    }
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    let mut three = Client::connect(&pair.b, 3, "phone").await;
    one.store_text(TEAM, "m-0", "zero").await;
    expect_texts(&mut two, &["zero"]).await;
    pair.may_publish(false).await;
    delete_team(&http).await;
    make_team(&http, &[1, 3]).await;
    metric_reaches(&pair.a, "tidegate_dropped_total{reason=\"bus_publish_failed\"}", 2).await;
    pair.may_publish(true).await;
    one.store_text(TEAM, "m-1", "not for two").await;
    eventually("three finds it", secs(15), || async {
        (audience(&pair).await == ["gw-a", "gw-b"]).then_some(())
    })
    .await;
    one.store_text(TEAM, "m-2", "nor this").await;
    // He joined unseen: told where it stands, he pulls the rest.
    follow(&mut three, 0, 2).await;
    expect_stranger(&mut two, "x-1").await;
}
