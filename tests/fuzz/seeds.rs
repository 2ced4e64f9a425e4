//! The named cases: what clients send, and what nobody should.

use prost::Message;
use tidegate::internal::encode_varint;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{
    Ack, AckStatus, ConversationsReq, Custom, Envelope, Error, ErrorCode, Header, Heartbeat, Identify, Kick,
    MediaRef, MessageType, Position, PresenceReq, Push, PushBatch, Ready, Receipt, SendMessageReq, SyncReq,
    Typing, send_message_req,
};

/// Name and bytes.
pub(crate) type Case = (String, Vec<u8>);

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// The cases of each corpus folder.
pub(crate) fn all() -> [(&'static str, Vec<Case>); 2] {
    [("inbound", inbound()), ("codec", codec())]
}

fn named(cases: Vec<(&str, Vec<u8>)>) -> Vec<Case> {
    cases.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn inbound() -> Vec<Case> {
    let beat = frame(FIN | BINARY, &[0]);
    let text = framed(&envelope(send("m-1", "hello")));
    let three: Vec<u8> =
        [(BINARY, &text[..4]), (CONTINUATION, &text[4..9]), (FIN | CONTINUATION, &text[9..])]
            .iter()
            .flat_map(|(first, part)| frame(*first, part))
            .collect();
    let fragments = |count| [frame(BINARY, b"x"), frame(CONTINUATION, b"x").repeat(count)].concat();
    let mut cases = named(vec![
        ("heartbeat", beat.clone()),
        ("heartbeats", beat.repeat(5)),
        ("send", frame(FIN | BINARY, &text)),
        ("send-and-heartbeat-in-one", frame(FIN | BINARY, &[&text[..], &[0]].concat())),
        ("empty-message", frame(FIN | BINARY, &[])),
        ("length-125", frame(FIN | BINARY, &[7; 125])),
        ("length-126", frame(FIN | BINARY, &[7; 126])),
        ("length-1024-at-the-limit", frame(FIN | BINARY, &[7; 1024])),
        ("length-1025-above-the-limit", frame(FIN | BINARY, &[7; 1025])),
        ("length-65536", frame(FIN | BINARY, &vec![7; 65_536])),
        ("header-of-131073-and-nothing-more", long_header(FIN | BINARY, 131_073)),
        ("header-of-2-to-the-62", long_header(FIN | BINARY, 1 << 62)),
        ("header-with-its-top-bit", long_header(FIN | BINARY, 1 << 63)),
        ("header-of-all-ones", long_header(FIN | BINARY, u64::MAX)),
        ("three-fragments", three),
        ("ping-between-fragments", [frame(BINARY, b"a"), frame(FIN | PING, b"?"), frame(FIN, b"b")].concat()),
        ("close-between-fragments", [frame(BINARY, b"a"), close(1000, b"")].concat()),
        ("empty-fragments", [frame(BINARY, b""), frame(0, b""), frame(FIN, b"")].concat()),
        ("fragments-64", [fragments(62), frame(FIN, b"x")].concat()),
        ("fragments-65", [fragments(63), frame(FIN, b"x")].concat()),
        ("fragments-without-end", fragments(40)),
        ("fragments-above-the-limit", [frame(BINARY, &[1; 1000]), frame(FIN, &[2; 25])].concat()),
        ("continuation-of-nothing", frame(FIN | CONTINUATION, b"x")),
        ("message-inside-a-fragmented-one", [frame(BINARY, b"a"), beat.clone()].concat()),
        ("ping", frame(FIN | PING, b"are you there?")),
        ("ping-of-125", frame(FIN | PING, &[1; 125])),
        ("ping-of-126", frame(FIN | PING, &[1; 126])),
        ("ping-fragmented", frame(PING, b"x")),
        ("pong", frame(FIN | PONG, b"unasked")),
        ("text", frame(FIN | TEXT, b"{}")),
        ("unmasked", vec![FIN | BINARY, 1, 0]),
        ("length-126-in-eight-bytes", long_header(FIN | BINARY, 126)),
        ("length-5-in-two-bytes", vec![FIN | BINARY, 0xfe, 0, 5, 1, 2, 3, 4, 1, 2, 3, 4, 5]),
        ("close", close(1000, "bye ✓".as_bytes())),
        ("close-and-more", [close(1001, b""), beat.clone()].concat()),
        ("close-empty", frame(FIN | CLOSE, b"")),
        ("close-of-one-byte", frame(FIN | CLOSE, b"\x03")),
        ("close-not-utf8", close(1000, b"\xff\xfe")),
        ("close-cut-inside-a-character", close(1000, b"\xe2\x82")),
        ("half-a-header", vec![FIN | BINARY, 0xff, 0, 0]),
        ("half-a-mask", vec![FIN | BINARY, 0x85, 1, 2]),
        ("half-a-payload", beat[..6].to_vec()),
    ]);
    cases.extend(
        [0, 999, 1004, 1005, 1006, 1015, 2999, 5000]
            .map(|code| (format!("close-code-{code}"), close(code, b""))),
    );
    cases.extend([3, 7, 11, 15].map(|opcode| (format!("opcode-{opcode}"), frame(FIN | opcode, b"x"))));
    cases.extend(
        [0x40, 0x20, 0x10].map(|bit| (format!("reserved-bit-{bit:02x}"), frame(FIN | bit | BINARY, b"x"))),
    );
    cases
}

fn codec() -> Vec<Case> {
    let mut cases = named(vec![
        ("nothing", vec![]),
        ("heartbeat", vec![0]),
        ("heartbeats", vec![0; 40]),
        ("bundle", [framed(&envelope(send("m-1", "a"))), vec![0], framed(&envelope(typing()))].concat()),
        ("number-max", number(u64::MAX)),
        ("number-not-ended", vec![0x80; 9]),
        ("number-of-eleven-bytes", vec![0x80; 11]),
        ("number-above-64-bits", [vec![0xff; 9], vec![0x7f]].concat()),
        ("number-not-shortest", vec![0x80, 0x00]),
        ("number-max-not-shortest", [vec![0xff; 9], vec![0x81, 0x00]].concat()),
        ("frame-beyond-the-message", vec![5, 1, 2]),
        ("frame-of-2-to-the-63", number(1 << 63)),
        ("rest-behind-a-whole-frame", vec![0, 5]),
        ("envelope-empty-group", vec![0x53, 0x54]),
        ("envelope-deep-groups", [0x53; 200].to_vec()),
        ("envelope-group-ended-by-another", vec![0x53, 0x5c]),
        ("envelope-tag-0", vec![0x00, 0x00]),
        ("envelope-wrong-wire-type", vec![0x08, 0x01]),
        ("envelope-truncated", vec![0x0a, 0x7f]),
        ("envelope-text-not-utf8", vec![0x0a, 0x03, 0x0a, 0x01, 0xff]),
        ("envelope-length-of-all-ones", [vec![0x0a], vec![0xff; 9], vec![0x01]].concat()),
        ("envelope-unknown-payload", [vec![0xfa, 0x3f, 3], b"abc".to_vec()].concat()),
        ("envelope-two-payloads", [envelope(typing()), envelope(send("m", "x"))].concat()),
        ("envelope-two-headers", [envelope(typing()), envelope(typing())].concat()),
    ]);
    for (name, payload) in payloads() {
        cases.push((name.to_owned(), envelope(payload.clone())));
        cases.push((format!("{name}-framed"), framed(&envelope(payload))));
    }
    cases
}

fn payloads() -> Vec<(&'static str, Payload)> {
    let position = Position { conversation_id: "p2p:1:2".into(), epoch: 1, seq: 7, ..Position::default() };
    let media =
        MediaRef { media_id: "m".into(), size: i64::MIN, width: -1, height: i32::MAX, ..MediaRef::default() };
    let push = Push { conversation_id: "g:x".into(), seq: i64::MAX, epoch: u64::MAX, ..Push::default() };
    let mut with_media = match send("m-2", "") {
        Payload::Send(request) => request,
        _ => unreachable!(),
    };
    with_media.content = Some(send_message_req::Content::MediaRef(media));
    with_media.r#type = 99;
    let error =
        Error { code: ErrorCode::ResyncRequired.into(), current: Some(position.clone()), ..Error::default() };
    vec![
        ("send", send("m-1", "hello ✓")),
        ("send-media", Payload::Send(with_media)),
        (
            "send-binary",
            Payload::Send(SendMessageReq {
                content: Some(send_message_req::Content::BinaryContent(vec![0xff; 300].into())),
                ..SendMessageReq::default()
            }),
        ),
        (
            "ack",
            Payload::Ack(Ack {
                conversation_id: "p2p:1:2".into(),
                seq: -1,
                status: AckStatus::Delivered.into(),
                error: Some(error.clone()),
                ..Ack::default()
            }),
        ),
        ("hb", Payload::Hb(Heartbeat { client_time: i64::MAX, background: true })),
        ("read", Payload::Read(Receipt { read_seq: i64::MIN, ..Receipt::default() })),
        ("typing", typing()),
        (
            "identify",
            Payload::Identify(Identify {
                token: "a.b.c".into(),
                device_id: "phone".into(),
                have: vec![position.clone(); 4],
                client: [("platform".to_owned(), "test".to_owned()), (String::new(), String::new())].into(),
            }),
        ),
        (
            "ready",
            Payload::Ready(Ready { conversations: vec![position], has_more: true, ..Ready::default() }),
        ),
        ("push", Payload::Push(push.clone())),
        (
            "push-batch",
            Payload::PushBatch(PushBatch { messages: vec![push; 3], replay: true, ..PushBatch::default() }),
        ),
        ("sync", Payload::Sync(SyncReq { limit: u32::MAX, direction: 7, ..SyncReq::default() })),
        ("error", Payload::Error(error)),
        ("kick", Payload::Kick(Kick { reason: -1, may_reconnect: true, retry_after_ms: 1 })),
        ("presence", Payload::Presence(PresenceReq { user_ids: vec![1, -1, i64::MAX], watch: true })),
        (
            "custom",
            Payload::Custom(Custom { topic: "t".into(), to_user_ids: vec![1, 2], ..Custom::default() }),
        ),
        (
            "conversations",
            Payload::Conversations(ConversationsReq { cursor: "c".into(), ..ConversationsReq::default() }),
        ),
    ]
}

fn send(id: &str, text: &str) -> Payload {
    Payload::Send(SendMessageReq {
        conversation_id: "p2p:1:2".into(),
        client_msg_id: id.into(),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent(text.into())),
        meta: [("lang".to_owned(), "en".to_owned())].into(),
    })
}

fn typing() -> Payload {
    Payload::Typing(Typing { conversation_id: "p2p:1:2".into(), active: true, by_user_id: 1 })
}

fn envelope(payload: Payload) -> Vec<u8> {
    let header =
        Header { trace_id: "t".into(), timestamp: 1_700_000_000_000, user_id: -1, ..Header::default() };
    Envelope { header: Some(header), payload: Some(payload) }.encode_to_vec()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [number(body.len() as u64), body.to_vec()].concat()
}

fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    out
}

/// A client's frame, masked; `first` is FIN, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = match payload.len() {
        length @ 0..126 => vec![first, 0x80 | length as u8],
        length @ 126..0x1_0000 => [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
        length => long_header(first, length as u64),
    };
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn long_header(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes()].concat()
}

fn close(code: u16, text: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], text].concat())
}
