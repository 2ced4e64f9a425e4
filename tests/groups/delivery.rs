//! Messages on their way to everybody.

use crate::common::payload::{custom, text, typing};
use crate::common::{Client, Gateway, Options};
use crate::{TEAM, audience, expect_silence, make_team, start_pair};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{AckStatus, Custom};

const EACH: i64 = 120;

/// Two devices send at once; everybody gets everything else in order.
async fn two_senders(a: &Gateway, b: &Gateway) {
    make_team(&a.http(), &[1, 2, 3, 4]).await;
    let mut phone = Client::connect(a, 1, "phone").await;
    let mut laptop = Client::connect(b, 1, "laptop").await;
    let mut other = Client::connect(b, 2, "phone").await;
    let mut here = Client::connect(a, 3, "phone").await;
    let mut there = Client::connect(b, 4, "phone").await;
    let mut stranger = Client::connect(b, 5, "phone").await;
    for n in 0..EACH {
        phone.send_message(text(TEAM, &format!("p-{n}"), &format!("phone {n}"))).await;
        other.send_message(text(TEAM, &format!("o-{n}"), &format!("other {n}"))).await;
    }
    for (client, id) in [(&mut phone, "p"), (&mut other, "o")] {
        let mut own = Vec::new();
        for n in 0..EACH {
            own.push(client.expect_stored(&format!("{id}-{n}")).await.seq);
        }
        assert!(own.is_sorted(), "appended in the order they were sent");
        let mut rest = Vec::new();
        for _ in 0..EACH {
            rest.push(client.expect_push().await.seq);
        }
        assert!(rest.is_sorted());
        let mut all = [own, rest].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=2 * EACH).collect::<Vec<_>>());
        expect_silence(client).await;
    }
    for client in [&mut laptop, &mut here, &mut there] {
        for seq in 1..=2 * EACH {
            assert_eq!(client.expect_push().await.seq, seq);
        }
        expect_silence(client).await;
    }
    expect_silence(&mut stranger).await;
}

#[tokio::test]
async fn everybody_gets_each_message_once_and_in_order() {
    let pair = start_pair().await;
    two_senders(&pair.a, &pair.b).await;
    assert_eq!(audience(&pair).await, ["gw-a", "gw-b"]);
}

#[tokio::test]
async fn so_it_is_on_a_gateway_alone() {
    let gateway = Gateway::start(Options::new().env("TIDEGATE_GROUPS_PUSH_RATE", "100000")).await;
    two_senders(&gateway, &gateway).await;
}

fn to_team(topic: &str) -> Payload {
    let Payload::Custom(custom) = custom(topic, &[]) else { panic!("a Custom") };
    Payload::Custom(Custom { conversation_id: TEAM.to_owned(), ..custom })
}

#[tokio::test]
async fn what_is_not_stored_reaches_who_is_online() {
    let pair = start_pair().await;
    make_team(&pair.a.http(), &[1, 2, 3]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.a, 2, "phone").await;
    let mut three = Client::connect(&pair.b, 3, "phone").await;
    let mut stranger = Client::connect(&pair.b, 4, "phone").await;
    one.send(typing(TEAM, true)).await;
    one.send(to_team("drawing")).await;
    for client in [&mut two, &mut three] {
        let typist =
            |p: &Payload| if let Payload::Typing(typing) = p { Some(typing.by_user_id) } else { None };
        assert_eq!(client.expect("Typing", typist).await, 1);
        let from = |p: &Payload| match p {
            Payload::Custom(custom) if custom.topic == "drawing" => Some(custom.from_user_id),
            _ => None,
        };
        assert_eq!(client.expect("Custom", from).await, 1);
    }
    for payload in [typing(TEAM, true), to_team("drawing")] {
        stranger.send(payload).await;
        assert_eq!(stranger.expect_error().await.code(), tidegate::proto::ErrorCode::NotFound);
    }
    for client in [&mut one, &mut stranger] {
        client.beat().await;
        let came = client.drain();
        assert!(!came.iter().any(|p| matches!(p, Payload::Typing(_) | Payload::Custom(_))), "{came:?}");
    }
}

#[tokio::test]
async fn a_repeated_message_is_delivered_once() {
    let pair = start_pair().await;
    make_team(&pair.a.http(), &[1, 2]).await;
    let mut phone = Client::connect(&pair.a, 1, "phone").await;
    let mut laptop = Client::connect(&pair.b, 1, "laptop").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    let first = phone.store_text(TEAM, "m-1", "once").await;
    assert_eq!(two.expect_push().await.seq, 1);
    laptop.expect_push().await;
    let again = laptop.store_text(TEAM, "m-1", "once").await;
    assert_eq!((again.seq, again.duplicate, again.status()), (first.seq, true, AckStatus::Stored));
    phone.store_text(TEAM, "m-2", "more").await;
    assert_eq!(two.expect_push().await.seq, 2);
    expect_silence(&mut two).await;
}
