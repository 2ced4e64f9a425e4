//! Envelopes to and from WebSocket messages.
//!
//! A message holds one or more frames, each `varint(length) ++ Envelope`; a
//! frame of length 0 is a heartbeat and carries nothing.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::wire::pb::Envelope;

/// The heartbeat frame.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(&[0]);

/// What makes a message unreadable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// The varint in front of a frame does not end or is too large.
    #[error("broken frame length")]
    Length,
    /// A frame claims more bytes than the message has.
    #[error("frame of {length} bytes in a message with {left} left")]
    Truncated { length: usize, left: usize },
    /// The bytes of a frame are no Envelope.
    #[error("broken envelope: {0}")]
    Envelope(prost::DecodeError),
}

/// One frame holding `envelope`.
pub(crate) fn encode(envelope: &Envelope) -> Bytes {
    Bytes::from(envelope.encode_length_delimited_to_vec())
}

/// Appends the envelopes of one message to `into`, skipping heartbeats.
/// Frames in front of a broken one are kept.
pub(crate) fn decode(mut message: Bytes, into: &mut VecDeque<Envelope>) -> Result<(), CodecError> {
    while message.has_remaining() {
        let length = prost::decode_length_delimiter(&mut message).map_err(|_| CodecError::Length)?;
        let left = message.remaining();
        if length > left {
            return Err(CodecError::Truncated { length, left });
        }
        let frame = message.split_to(length);
        if length > 0 {
            into.push_back(Envelope::decode(frame).map_err(CodecError::Envelope)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::{Typing, envelope::Payload};

    fn typing(conversation: &str) -> Envelope {
        let typing = Typing { conversation_id: conversation.to_owned(), active: true, by_user_id: 0 };
        Envelope { header: None, payload: Some(Payload::Typing(typing)) }
    }

    #[test]
    fn several_frames_and_heartbeats_share_a_message() {
        let (a, b) = (typing("p2p:1:2"), typing(&"g".repeat(300)));
        let mut message = Vec::new();
        for part in [HEARTBEAT, encode(&a), HEARTBEAT, encode(&b), HEARTBEAT] {
            message.extend_from_slice(&part);
        }
        let mut out = VecDeque::new();
        decode(message.into(), &mut out).unwrap();
        assert_eq!(out, [a, b]);
    }

    #[test]
    fn broken_messages_are_refused_and_what_preceded_is_kept() {
        let good = encode(&typing("p2p:1:2"));
        let mut cut = good.to_vec();
        cut.extend_from_slice(&good[..good.len() - 1]);
        let mut out = VecDeque::new();
        assert!(matches!(decode(cut.into(), &mut out), Err(CodecError::Truncated { .. })));
        assert_eq!(out.len(), 1);
        out.clear();
        assert!(matches!(decode(vec![0xff; 11].into(), &mut out), Err(CodecError::Length)));
        assert!(matches!(decode(vec![0x80].into(), &mut out), Err(CodecError::Length)));
        assert!(matches!(decode(vec![2, 0xff, 0xff].into(), &mut out), Err(CodecError::Envelope(_))));
        assert!(out.is_empty());
    }

    #[test]
    fn an_unknown_payload_is_an_envelope_without_one() {
        // Field 1000, varint 1.
        let frame = vec![3, 0xc0, 0x3e, 1];
        let mut out = VecDeque::new();
        decode(frame.into(), &mut out).unwrap();
        assert_eq!(out, [Envelope::default()]);
    }
}
