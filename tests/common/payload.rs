//! Envelopes by the handful, and their framing.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Ack, AckStatus, Custom, Envelope, MessageType, Receipt, SendMessageReq, Typing};
use tidegate::proto::{push, send_message_req};

/// One frame of a WebSocket message.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a test holds few, and not for long")]
pub enum Frame {
    /// The single byte `00`.
    Beat,
    Envelope(Envelope),
}

/// A frame of one payload without a header.
pub fn frame(payload: Payload) -> Vec<u8> {
    Envelope { header: None, payload: Some(payload) }.encode_length_delimited_to_vec()
}

/// The frames of one WebSocket message.
pub fn frames(mut message: Bytes) -> Vec<Frame> {
    assert!(message.has_remaining(), "an empty message came in");
    let mut frames = Vec::new();
    while message.has_remaining() {
        frames.push(if message[0] == 0 {
            message.advance(1);
            Frame::Beat
        } else {
            Frame::Envelope(Envelope::decode_length_delimited(&mut message).expect("a whole frame"))
        });
    }
    frames
}

/// A frame whose body is these bytes.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    prost::encode_length_delimiter(body.len(), &mut out).unwrap();
    out.extend_from_slice(body);
    out.to_vec()
}

pub fn text(conversation: &str, id: &str, text: &str) -> SendMessageReq {
    SendMessageReq {
        conversation_id: conversation.to_owned(),
        client_msg_id: id.to_owned(),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent(text.to_owned())),
        meta: [("lang".to_owned(), "en".to_owned())].into(),
    }
}

/// What a receiver's device says it holds.
pub fn delivered(conversation: &str, seq: i64) -> Payload {
    Payload::Ack(Ack {
        conversation_id: conversation.to_owned(),
        seq,
        status: AckStatus::Delivered.into(),
        ..Ack::default()
    })
}

pub fn receipt(conversation: &str, read_seq: i64) -> Payload {
    Payload::Read(Receipt { conversation_id: conversation.to_owned(), read_seq, ..Receipt::default() })
}

pub fn typing(conversation: &str, active: bool) -> Payload {
    Payload::Typing(Typing { conversation_id: conversation.to_owned(), active, by_user_id: 0 })
}

pub fn custom(topic: &str, to: &[i64]) -> Payload {
    Payload::Custom(Custom {
        topic: topic.to_owned(),
        payload: Bytes::from_static(b"\x00opaque\xff"),
        to_user_ids: to.to_vec(),
        ..Custom::default()
    })
}

/// The text of a push, if it is one.
pub fn text_of(push: &tidegate::proto::Push) -> &str {
    match &push.content {
        Some(push::Content::TextContent(text)) => text,
        other => panic!("not text: {other:?}"),
    }
}
