//! One gateway alone: the protocol as a client sees it.

mod common;

use common::payload::{Frame, custom, delivered, frame, receipt, text, text_of, typing};
use common::{Client, Gateway, Options, SOON, eventually, secs};
use prost::Message;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{
    Custom, Envelope, ErrorCode, Header, Heartbeat, KickReason, MessageType, Receipt, Typing,
};

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
async fn ready_introduces_the_gateway_and_the_session() {
    let gateway = Gateway::start(Options::new()).await;
    let phone = Client::connect(&gateway, 42, "phone").await;
    let ready = &phone.ready;
    assert_eq!((ready.user_id, ready.device_id.as_str()), (42, "phone"));
    assert_eq!(ready.gateway_id, gateway.id);
    assert!(!ready.session_id.is_empty());
    assert_eq!(ready.max_frame_bytes, 131_072);
    assert!((15_000..=35_000).contains(&ready.heartbeat_interval_ms), "{}", ready.heartbeat_interval_ms);
    assert!(ready.first_heartbeat_ms <= ready.heartbeat_interval_ms, "{}", ready.first_heartbeat_ms);
    let now = i64::try_from(common::token::now()).unwrap() * 1000;
    assert!((now - ready.server_time).abs() < 60_000, "{}", ready.server_time);
    assert!(ready.conversations.is_empty() && !ready.has_more);

    let laptop = Client::connect(&gateway, 42, "laptop").await;
    assert_ne!(laptop.ready.session_id, phone.ready.session_id);
}

#[tokio::test]
async fn a_missing_device_is_the_default_one_and_unknown_parameters_are_ignored() {
    let gateway = Gateway::start(Options::new()).await;
    let mut client = Client::open(&gateway, "/ws?colour=blue&user=42&x").await;
    client.expect_ready().await;
    assert_eq!((client.ready.user_id, client.ready.device_id.as_str()), (42, "default"));
}

#[tokio::test]
async fn without_a_valid_identity_the_handshake_is_refused() {
    let gateway = Gateway::start(Options::new()).await;
    for target in
        ["/ws", "/ws?device=phone", "/ws?user=0", "/ws?user=-1", "/ws?user=abc", "/ws?user=1&device=a%20b"]
    {
        match Client::try_open(&gateway, target, &[]).await {
            Ok(_) => panic!("{target} was accepted"),
            Err(status) => assert!(["400", "401"].contains(&status.as_str()), "{target}: {status}"),
        }
    }
    assert_eq!(Client::try_open(&gateway, "/ws", &[]).await.err().as_deref(), Some("401"));
}

#[tokio::test]
async fn heartbeats_of_both_kinds_are_answered() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.beat().await;
    phone.send(Payload::Hb(Heartbeat { client_time: 777, background: false })).await;
    let ack = phone
        .expect("a HeartbeatAck", |p| if let Payload::HbAck(ack) = p { Some(ack.clone()) } else { None })
        .await;
    assert_eq!(ack.client_time, 777);
    assert!(ack.server_time >= phone.ready.server_time);
    assert!((15_000..=35_000).contains(&ack.next_interval_ms), "{}", ack.next_interval_ms);
}

#[tokio::test]
async fn one_message_carries_several_frames() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut bundle = vec![0];
    bundle.extend(frame(Payload::Hb(Heartbeat { client_time: 1, background: true })));
    bundle.extend(frame(Payload::Send(text(CHAT, "a", "first"))));
    bundle.extend(frame(Payload::Send(text(CHAT, "b", "second"))));
    bundle.push(0);
    phone.send_raw(bundle).await;
    assert_eq!(phone.expect_stored("a").await.seq, 1);
    assert_eq!(phone.expect_stored("b").await.seq, 2);
    phone.expect("a HeartbeatAck", |p| matches!(p, Payload::HbAck(_)).then_some(())).await;
    for _ in 0..2 {
        phone.take("an echo", SOON, |frame| matches!(frame, Frame::Beat).then_some(())).await;
    }
}

#[tokio::test]
async fn silence_closes_and_any_frame_is_life() {
    let gateway = Gateway::start(Options::new().env("TIDEGATE_HEARTBEAT_INTERVAL", "1s")).await;
    let mut silent = Client::connect(&gateway, 42, "phone").await;
    let mut alive = Client::connect(&gateway, 43, "phone").await;
    assert_eq!(silent.ready.heartbeat_interval_ms, 1000);
    let keeping = async {
        let mut ticks = tokio::time::interval(secs(1));
        for _ in 0..6 {
            ticks.tick().await;
            alive.beat().await;
        }
    };
    let (code, ()) = tokio::join!(silent.expect_close(), keeping);
    assert_eq!(code, Some(1001));
    alive.beat().await;
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
async fn who_was_away_finds_the_conversation_in_ready() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.store_text(CHAT, "m-1", "one").await;
    let ack = phone.store_text(CHAT, "m-2", "two").await;

    let friend = Client::connect(&gateway, 43, "phone").await;
    let [top] = friend.ready.conversations.as_slice() else { panic!("{:?}", friend.ready) };
    assert_eq!((top.conversation_id.as_str(), top.seq, top.epoch), (CHAT, 2, ack.epoch));
    assert_eq!(top.server_msg_id, ack.server_msg_id);
    assert_eq!((top.read_seq, top.unread), (0, 2));
}

#[tokio::test]
async fn the_same_device_again_replaces_the_older_connection() {
    let gateway = Gateway::start(Options::new()).await;
    let mut old = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let mut new = Client::connect(&gateway, 42, "phone").await;
    let (kick, code) = old.expect_kick(KickReason::Replaced).await;
    assert!(!kick.may_reconnect);
    assert_eq!(code, Some(4009));
    new.beat().await;
    friend.store_text(CHAT, "m-1", "still there?").await;
    assert_eq!(text_of(&new.expect_push().await), "still there?");
    new.beat().await;
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
async fn an_unknown_payload_is_unsupported_and_the_connection_stays() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    // Field 99, length-delimited, two bytes: a payload of a later version.
    phone.send_raw(common::payload::framed(&[0x9a, 0x06, 0x02, 0x08, 0x01])).await;
    assert_eq!(phone.expect_error().await.code(), ErrorCode::Unsupported);
    phone.beat().await;
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

#[tokio::test]
async fn a_stop_says_goodbye_and_exits_cleanly() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    gateway.terminate();
    assert_eq!(phone.expect_close().await, Some(1001));
    let status = gateway.exit(secs(15)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_closed_connection_is_forgotten() {
    let gateway = Gateway::start(Options::new()).await;
    let phone = Client::connect(&gateway, 42, "phone").await;
    let http = gateway.http();
    let count = || async { http.get("/v1/status").await.json()["connections"].as_u64() };
    assert_eq!(count().await, Some(1));
    phone.close().await;
    eventually("no connection is left", SOON, || async { (count().await == Some(0)).then_some(()) }).await;
}
