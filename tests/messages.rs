//! One gateway alone: what becomes of what users send each other.

mod common;

use common::payload::{custom, delivered, receipt, text, text_of, typing};
use common::{Client, Gateway, Options};
use prost::Message;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Custom, Envelope, ErrorCode, Header, MessageType, Receipt, Typing};

const CHAT: &str = "p2p:42:43";

fn as_receipt(payload: &Payload) -> Option<Receipt> {
    if let Payload::Read(receipt) = payload { Some(receipt.clone()) } else { None }
}

fn as_typing(payload: &Payload) -> Option<Typing> {
    if let Payload::Typing(typing) = payload { Some(typing.clone()) } else { None }
}

fn as_custom(payload: &Payload) -> Option<Custom> {
    if let Payload::Custom(custom) = payload { Some(custom.clone()) } else { None }
}

#[tokio::test]
async fn a_message_is_acked_and_reaches_every_other_device() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut laptop = Client::connect(&gateway, 42, "laptop").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;

    let ack = phone.store_text(CHAT, "m-1", "hello").await;
    assert_eq!((ack.seq, ack.conversation_id.as_str(), ack.duplicate), (1, CHAT, false));
    assert!(!ack.server_msg_id.is_empty() && ack.epoch > 0 && ack.server_time > 0);
    assert!((1..=3).contains(&ack.level), "{}", ack.level);
    assert!(ack.error.is_none());

    for receiver in [&mut friend, &mut laptop] {
        let push = receiver.expect_push().await;
        assert_eq!((push.conversation_id.as_str(), push.seq, push.epoch), (CHAT, 1, ack.epoch));
        assert_eq!(push.server_msg_id, ack.server_msg_id);
        assert_eq!((push.from_user_id, push.from_device_id.as_str()), (42, "phone"));
        assert_eq!((push.client_msg_id.as_str(), push.r#type()), ("m-1", MessageType::Text));
        assert_eq!(text_of(&push), "hello");
        assert_eq!(push.meta.get("lang").map(String::as_str), Some("en"));
        assert!(push.server_time > 0);
    }

    let answer = friend.store_text(CHAT, "m-2", "hi").await;
    assert_eq!((answer.seq, answer.epoch), (2, ack.epoch));
    assert_ne!(answer.server_msg_id, ack.server_msg_id);
    for receiver in [&mut phone, &mut laptop] {
        let push = receiver.expect_push().await;
        assert_eq!((push.seq, push.from_user_id, text_of(&push)), (2, 43, "hi"));
    }
    phone.beat().await;
    assert!(phone.drain_texts().is_empty(), "the sending device got its own message");
}

#[tokio::test]
async fn messages_of_one_connection_keep_their_order() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    for n in 1..=200 {
        phone.send_text(CHAT, &format!("m-{n}"), &n.to_string()).await;
    }
    for n in 1..=200 {
        assert_eq!(phone.expect_stored(&format!("m-{n}")).await.seq, n);
        let push = friend.expect_push().await;
        assert_eq!((push.seq, text_of(&push)), (n, n.to_string().as_str()));
    }
}

#[tokio::test]
async fn delivered_is_told_to_the_sender_cumulatively_and_never_beyond_the_top() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    for n in 1..=3 {
        phone.store_text(CHAT, &format!("m-{n}"), "x").await;
        friend.expect_push().await;
    }
    friend.send(delivered(CHAT, 2)).await;
    let ack = phone.expect_delivered(CHAT, 2).await;
    assert_eq!((ack.by_user_id, ack.client_msg_id.as_str()), (43, ""));

    friend.send(delivered(CHAT, 99)).await;
    phone.expect_delivered(CHAT, 3).await;
    friend.send(delivered(CHAT, 1)).await;
    phone.store_text(CHAT, "m-4", "x").await;
    friend.expect_push().await;
    friend.send(delivered(CHAT, 4)).await;
    phone.expect_delivered(CHAT, 4).await;
    for payload in phone.drain() {
        if let Payload::Ack(ack) = payload {
            assert!((2..=4).contains(&ack.seq), "a position went back or beyond the top: {ack:?}");
        }
    }
}

#[tokio::test]
async fn receipts_travel_both_ways_and_to_the_readers_other_devices() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let mut tablet = Client::connect(&gateway, 43, "tablet").await;
    phone.store_text(CHAT, "m-1", "x").await;
    friend.expect_push().await;
    friend.send(receipt(CHAT, 1)).await;
    for told in [&mut phone, &mut tablet] {
        let receipt = told.expect("a Receipt", as_receipt).await;
        assert_eq!((receipt.conversation_id.as_str(), receipt.read_seq, receipt.by_user_id), (CHAT, 1, 43));
    }
    friend.store_text(CHAT, "m-2", "y").await;
    phone.expect_push().await;
    phone.send(receipt(CHAT, 2)).await;
    let receipt = friend.expect("a Receipt", as_receipt).await;
    assert_eq!((receipt.read_seq, receipt.by_user_id), (2, 42));
}

#[tokio::test]
async fn typing_and_custom_pass_through_unstored() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let mut stranger = Client::connect(&gateway, 99, "phone").await;
    phone.store_text(CHAT, "m-1", "x").await;

    for active in [true, false] {
        phone.send(typing(CHAT, active)).await;
        let typing = friend.expect("Typing", as_typing).await;
        assert_eq!((typing.conversation_id.as_str(), typing.active, typing.by_user_id), (CHAT, active, 42));
    }
    phone.send(custom("call.offer", &[43])).await;
    let received = friend.expect("Custom", as_custom).await;
    assert_eq!((received.topic.as_str(), received.from_user_id), ("call.offer", 42));
    assert_eq!(received.payload.as_ref(), b"\x00opaque\xff");

    let Payload::Custom(mut whole) = custom("call.ring", &[]) else { unreachable!() };
    CHAT.clone_into(&mut whole.conversation_id);
    phone.send(Payload::Custom(whole)).await;
    assert_eq!(friend.expect("Custom", as_custom).await.topic, "call.ring");

    // A stranger is neither a fellow member nor a partner yet.
    phone.send(custom("spam", &[99])).await;
    assert_eq!(phone.expect_error().await.code(), ErrorCode::Forbidden);
    phone.store_text("p2p:42:99", "m-2", "may I?").await;
    stranger.expect_push().await;
    stranger.beat().await;
    assert!(!stranger.drain().iter().any(|payload| as_custom(payload).is_some()), "a stranger got a Custom");
}

#[tokio::test]
async fn a_repeated_send_is_answered_with_the_original() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut laptop = Client::connect(&gateway, 42, "laptop").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let original = phone.store_text(CHAT, "m-1", "once").await;
    assert!(!original.duplicate);
    for device in [&mut phone, &mut laptop] {
        let again = device.store_text(CHAT, "m-1", "once").await;
        assert!(again.duplicate);
        assert_eq!(
            (&again.server_msg_id, again.seq, again.epoch),
            (&original.server_msg_id, 1, original.epoch)
        );
    }
    phone.send_text(CHAT, "m-1", "something else").await;
    assert_eq!(phone.expect_failed("m-1").await, ErrorCode::Invalid);

    // The same id is free to another user and in another conversation.
    assert_eq!(friend.store_text(CHAT, "m-1", "mine").await.seq, 2);
    assert_eq!(phone.store_text("p2p:42:44", "m-1", "once").await.seq, 1);
    assert_eq!(phone.store_text(CHAT, "m-2", "last").await.seq, 3);
    for expected in ["once", "last"] {
        assert_eq!(text_of(&friend.expect_push().await), expected);
    }
}

#[tokio::test]
async fn a_send_that_cannot_be_is_refused_and_harms_nothing() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    for (n, conversation) in
        ["", "x", "p2p:43:42", "p2p:42:42", "p2p:042:43", "p2p:42:43:44", "g:", "g:{a}"].iter().enumerate()
    {
        let id = format!("conversation-{n}");
        phone.send_text(conversation, &id, "x").await;
        assert_eq!(phone.expect_failed(&id).await, ErrorCode::Invalid, "{conversation:?}");
    }
    for (n, conversation) in ["p2p:43:44", "g:nowhere"].iter().enumerate() {
        let id = format!("membership-{n}");
        phone.send_text(conversation, &id, "x").await;
        let code = phone.expect_failed(&id).await;
        assert!(matches!(code, ErrorCode::NotFound | ErrorCode::Forbidden), "{conversation}: {code:?}");
    }
    for id in ["", "a b", "{a}", &"x".repeat(65)] {
        phone.send_text(CHAT, id, "x").await;
        let failed =
            |payload: &Payload| if let Payload::Ack(ack) = payload { ack.error.clone() } else { None };
        assert_eq!(phone.expect("a refusal", failed).await.code(), ErrorCode::Invalid, "{id:?}");
    }
    let mut empty = text(CHAT, "empty", "");
    empty.content = None;
    phone.send_message(empty).await;
    assert_eq!(phone.expect_failed("empty").await, ErrorCode::Invalid);
    assert_eq!(phone.store_text(CHAT, "good", "x").await.seq, 1, "a refused send took a seq");
}

#[tokio::test]
async fn who_sends_is_the_gateways_word() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let header = Header { user_id: 7, device_id: "forged".to_owned(), ..Header::default() };
    let Payload::Custom(mut note) = custom("t", &[43]) else { unreachable!() };
    note.from_user_id = 7;
    let typing = Typing { conversation_id: CHAT.to_owned(), active: true, by_user_id: 7 };
    let forged = |payload| {
        Envelope { header: Some(header.clone()), payload: Some(payload) }.encode_length_delimited_to_vec()
    };
    phone.send_raw(forged(Payload::Send(text(CHAT, "m-1", "x")))).await;
    phone.expect_stored("m-1").await;
    phone.send_raw(forged(Payload::Typing(typing))).await;
    phone.send_raw(forged(Payload::Custom(note))).await;
    let push = friend.expect_push().await;
    assert_eq!((push.from_user_id, push.from_device_id.as_str()), (42, "phone"));
    assert_eq!(friend.expect("Typing", as_typing).await.by_user_id, 42);
    assert_eq!(friend.expect("Custom", as_custom).await.from_user_id, 42);
}
