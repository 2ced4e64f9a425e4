//! What strangers send: broken handshakes, bad credentials and every kind of
//! broken frame. Each gets its own answer, and nobody else notices.

mod common;

use common::payload::{Frame, frame, framed};
use common::raw::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, Upgrade};
use common::{Client, Gateway, Options, SOON, secs};
use tidegate::proto::Heartbeat;
use tidegate::proto::envelope::Payload;

/// More than the gateway's deadline for a handshake, 5 s.
const HANDSHAKE: std::time::Duration = secs(12);

#[tokio::test]
async fn a_wrong_handshake_gets_the_status_that_names_its_fault() {
    let gateway = Gateway::start(Options::new()).await;
    let good = || Upgrade::new("/ws?user=42&device=phone");

    assert_eq!(Upgrade::new("/nope?user=42").send(&gateway).await.status, 404);
    let post = good().method("POST").send(&gateway).await;
    assert_eq!((post.status, post.header("Allow")), (405, "GET"));
    let version = good().with("Sec-WebSocket-Version", "8").send(&gateway).await;
    assert_eq!((version.status, version.header("Sec-WebSocket-Version")), (426, "13"));
    assert_eq!(good().without("Sec-WebSocket-Key").send(&gateway).await.status, 400);
    assert_eq!(good().with("Sec-WebSocket-Key", "c2hvcnQ=").send(&gateway).await.status, 400);
    assert_eq!(good().with("X-Large", &"x".repeat(100_000)).send(&gateway).await.status, 431);

    let head = good().send(&gateway).await;
    assert_eq!((head.status, head.header("Sec-WebSocket-Protocol")), (101, "tidegate.v1"));
}

#[tokio::test]
async fn what_is_not_http_is_closed() {
    let gateway = Gateway::start(Options::new()).await;
    let client_hello = b"\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03\r\n\r\n";
    for garbage in
        [&b"\r\n\r\n"[..], b"\0\0\0\0\r\n\r\n", client_hello, b"GET\r\n\r\n", b"GET /ws HTTP/9.9\r\n\r\n"]
    {
        let mut socket = Raw::connect(&gateway).await;
        socket.write(garbage).await;
        if let Some(head) = socket.try_head(HANDSHAKE).await {
            assert!((400..=505).contains(&head.status), "{garbage:?}: {head:?}");
        }
    }
    Client::connect(&gateway, 42, "phone").await.beat().await;
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off() {
    let gateway = Gateway::start(Options::new()).await;
    let mut silent = Raw::connect(&gateway).await;
    let mut half = Raw::connect(&gateway).await;
    half.write(b"GET /ws?user=42 HTTP/1.1\r\nHost: x\r\n").await;
    let mut dripping = Raw::connect(&gateway).await;
    let drip = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(250));
        for _ in 0..48 {
            ticks.tick().await;
            if !dripping.try_write(b"X").await {
                return;
            }
        }
        panic!("a byte now and then keeps a handshake open");
    };
    let (head, (), ()) = tokio::join!(half.try_head(HANDSHAKE), silent.ended(HANDSHAKE), drip);
    if let Some(head) = head {
        assert_eq!(head.status, 408);
    }
    Client::connect(&gateway, 42, "phone").await.beat().await;
}

#[tokio::test]
async fn only_listed_origins_may_come_from_a_browser() {
    let options = Options::new().config("origins = [\"https://chat.example\"]\n");
    let gateway = Gateway::start(options).await;
    let from = |origin| Upgrade::new("/ws?user=42").with("Origin", origin);
    assert_eq!(from("https://evil.example").send(&gateway).await.status, 403);
    assert_eq!(from("https://chat.example.evil.example").send(&gateway).await.status, 403);
    assert_eq!(from("https://chat.example").send(&gateway).await.status, 101);
    assert_eq!(Upgrade::new("/ws?user=42").send(&gateway).await.status, 101);
}

/// One way to break the protocol: its name, the bytes, the close code owed.
struct Case(&'static str, Vec<u8>, u16);

fn framing() -> Vec<Case> {
    let beat = raw::frame(FIN | BINARY, &[0]);
    let mut unmasked = vec![FIN | BINARY, 1, 0];
    unmasked.extend(&beat);
    let start = raw::frame(BINARY, &[0]);
    vec![
        Case("unmasked", unmasked, 1002),
        Case("RSV1", raw::frame(FIN | 0x40 | BINARY, &[0]), 1002),
        Case("RSV2", raw::frame(FIN | 0x20 | BINARY, &[0]), 1002),
        Case("RSV3", raw::frame(FIN | 0x10 | BINARY, &[0]), 1002),
        Case("reserved opcode 3", raw::frame(FIN | 0x3, &[0]), 1002),
        Case("reserved opcode 7", raw::frame(FIN | 0x7, &[0]), 1002),
        Case("reserved opcode 11", raw::frame(FIN | 0xB, &[]), 1002),
        Case("reserved opcode 15", raw::frame(FIN | 0xF, &[]), 1002),
        Case("fragmented ping", raw::frame(PING, b"x"), 1002),
        Case("fragmented close", raw::frame(CLOSE, &1000_u16.to_be_bytes()), 1002),
        Case("ping of 126 bytes", raw::frame(FIN | PING, &[0; 126]), 1002),
        Case("pong of 126 bytes", raw::frame(FIN | PONG, &[0; 126]), 1002),
        Case("close of 126 bytes", raw::close(1000, &[b'x'; 124]), 1002),
        Case("continuation of nothing", raw::frame(FIN | CONTINUATION, &[0]), 1002),
        Case(
            "continuation after a whole message",
            [beat, raw::frame(FIN | CONTINUATION, &[0])].concat(),
            1002,
        ),
        Case(
            "message inside a fragmented one",
            [start.clone(), raw::frame(FIN | BINARY, &[0])].concat(),
            1002,
        ),
        Case("64-bit length with its top bit", length_of_64_bits(1 << 63, &[]), 1002),
        Case("64-bit length of all ones", length_of_64_bits(u64::MAX, &[]), 1002),
        Case("16-bit length below 126", raw::frame_with_length(FIN | BINARY, &[0xfe, 0, 1], &[0]), 1002),
        Case("64-bit length below 65536", length_of_64_bits(1, &[0]), 1002),
        Case("text", raw::frame(FIN | TEXT, b"hello"), 1003),
        Case("fragmented text", raw::frame(TEXT, b"hello"), 1003),
        Case("1 GiB, header only", length_of_64_bits(1 << 30, &[]), 1009),
        Case("131,073 bytes, header only", length_of_64_bits(131_073, &[]), 1009),
        Case("fragments above the limit", [start, length_of_continuation(131_072)].concat(), 1009),
    ]
}

fn length_of_64_bits(length: u64, payload: &[u8]) -> Vec<u8> {
    raw::frame_with_length(FIN | BINARY, &[&[0xff][..], &length.to_be_bytes()].concat(), payload)
}

fn length_of_continuation(length: u64) -> Vec<u8> {
    raw::frame_with_length(FIN | CONTINUATION, &[&[0xff][..], &length.to_be_bytes()].concat(), &[])
}

fn closing() -> Vec<Case> {
    let mut cases = vec![
        Case("close of one byte", raw::frame(FIN | CLOSE, &[3]), 1002),
        Case("close text that is not UTF-8", raw::close(1000, b"\xff\xfe"), 1007),
        Case("close text cut inside a character", raw::close(1000, b"\xe2\x82"), 1007),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        cases.push(Case("close code that may not be sent", raw::close(code, b""), 1002));
    }
    cases
}

fn payloads() -> Vec<Case> {
    let message = |payload: &[u8]| raw::frame(FIN | BINARY, payload);
    let mut overflowing = vec![0xff; 9];
    overflowing.push(0x7f);
    vec![
        Case("empty message", message(&[]), 1007),
        Case(
            "empty fragmented message",
            [raw::frame(BINARY, &[]), raw::frame(FIN | CONTINUATION, &[])].concat(),
            1007,
        ),
        Case("length without an end", message(&[0xff, 0xff]), 1007),
        Case("length of eleven bytes", message(&[0x80; 11]), 1007),
        Case("length above 64 bits", message(&overflowing), 1007),
        Case("length not in its shortest form", message(&[0x80, 0x00]), 1007),
        Case("length beyond the message", message(&[0x05, 0x01]), 1007),
        Case("rest behind a whole frame", message(&[0x00, 0x05]), 1007),
        Case("truncated protobuf", message(&framed(&[0x0a, 0x7f])), 1007),
        Case("wrong wire type", message(&framed(&[0x08, 0x01])), 1007),
        Case("text field that is not UTF-8", message(&framed(&[0x0a, 0x03, 0x0a, 0x01, 0xff])), 1007),
    ]
}

async fn each_is_closed_and_nobody_else_notices(cases: Vec<Case>) {
    let gateway = Gateway::start(Options::new()).await;
    let mut bystander = Client::connect(&gateway, 1, "phone").await;
    for (user, Case(name, bytes, code)) in (100..).zip(cases) {
        println!("{name}");
        let mut socket = Raw::upgraded(&gateway, user).await;
        socket.write(&bytes).await;
        assert_eq!(socket.closed().await, Some(code), "{name}: {:02x?}", bytes.get(..32).unwrap_or(&bytes));
        bystander.beat().await;
        Client::connect(&gateway, 2, "phone").await.beat().await;
    }
}

#[tokio::test]
async fn broken_framing() {
    each_is_closed_and_nobody_else_notices(framing()).await;
}

#[tokio::test]
async fn broken_closing() {
    each_is_closed_and_nobody_else_notices(closing()).await;
}

#[tokio::test]
async fn broken_payloads() {
    each_is_closed_and_nobody_else_notices(payloads()).await;
}

#[tokio::test]
async fn a_ping_returns_with_its_payload() {
    let gateway = Gateway::start(Options::new()).await;
    let mut socket = Raw::upgraded(&gateway, 42).await;
    for payload in [&b""[..], b"are you there?", &[0xfe; 125]] {
        socket.write(&raw::frame(FIN | PING, payload)).await;
        assert_eq!(socket.frame().await, Some((PONG, payload.to_vec())));
    }
    socket.write(&raw::frame(FIN | PONG, b"unasked")).await;
    socket.write(&raw::frame(FIN | BINARY, &[0])).await;
    assert_eq!(socket.frame().await, Some((BINARY, vec![0])));
}

#[tokio::test]
async fn a_close_is_echoed() {
    let gateway = Gateway::start(Options::new()).await;
    for (user, code) in (100..).zip([1000, 1001, 1011, 3000, 3999, 4000, 4999]) {
        let mut socket = Raw::upgraded(&gateway, user).await;
        socket.write(&raw::close(code, "bye ✓".as_bytes())).await;
        assert_eq!(socket.closed().await, Some(code));
    }
    let mut socket = Raw::upgraded(&gateway, 42).await;
    socket.write(&raw::frame(FIN | CLOSE, b"")).await;
    let code = socket.closed().await;
    assert!(matches!(code, None | Some(1000)), "{code:?}");
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let gateway = Gateway::start(Options::new()).await;
    let mut socket = Raw::upgraded(&gateway, 42).await;
    let beats = vec![0; 200];
    for byte in raw::frame(FIN | BINARY, &beats) {
        socket.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let mut echoed = Vec::new();
    while echoed.len() < beats.len() {
        let (opcode, payload) = socket.frame().await.expect("the echoes");
        assert_eq!(opcode, BINARY);
        echoed.extend(payload);
    }
    assert_eq!(echoed, beats);
}

#[tokio::test]
async fn a_fragmented_message_may_have_pings_inside() {
    let gateway = Gateway::start(Options::new()).await;
    let mut socket = Raw::upgraded(&gateway, 42).await;
    let message = frame(Payload::Hb(Heartbeat { client_time: 4711, background: false }));
    let (front, back) = message.split_at(2);
    socket.write(&raw::frame(BINARY, front)).await;
    socket.write(&raw::frame(FIN | PING, b"between")).await;
    assert_eq!(socket.frame().await, Some((PONG, b"between".to_vec())));
    socket.write(&raw::frame(CONTINUATION, b"")).await;
    socket.write(&raw::frame(FIN | CONTINUATION, back)).await;
    let (opcode, answer) = socket.frame().await.expect("a HeartbeatAck");
    assert_eq!(opcode, BINARY);
    let frames = common::payload::frames(answer.into());
    let [Frame::Envelope(envelope)] = frames.as_slice() else { panic!("{frames:?}") };
    assert!(
        matches!(&envelope.payload, Some(Payload::HbAck(ack)) if ack.client_time == 4711),
        "{envelope:?}"
    );
}

#[tokio::test]
async fn a_message_cut_by_a_reset_takes_nothing_with_it() {
    let gateway = Gateway::start(Options::new()).await;
    for user in 100..110 {
        let mut socket = Raw::upgraded(&gateway, user).await;
        let message = raw::frame(FIN | BINARY, &[0; 60]);
        socket.write(&message[..message.len() / 2]).await;
        drop(socket);
    }
    let http = gateway.http();
    common::eventually("they are forgotten", SOON, || async {
        (http.get("/v1/status").await.json()["connections"].as_u64() == Some(0)).then_some(())
    })
    .await;
}
