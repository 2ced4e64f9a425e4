//! One gateway alone: the life of a connection.

mod common;

use common::payload::{Frame, frame, text, text_of};
use common::{Client, Gateway, Options, SOON, eventually, secs};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{ErrorCode, Heartbeat, KickReason};

const CHAT: &str = "p2p:42:43";

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
async fn an_unknown_payload_is_unsupported_and_the_connection_stays() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    // Field 99, length-delimited, two bytes: a payload of a later version.
    phone.send_raw(common::payload::framed(&[0x9a, 0x06, 0x02, 0x08, 0x01])).await;
    assert_eq!(phone.expect_error().await.code(), ErrorCode::Unsupported);
    phone.beat().await;
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
