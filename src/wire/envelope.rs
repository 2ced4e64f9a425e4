//! Envelopes to and from bytes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::frame::Frames;
use super::pb::{Envelope, Error, ErrorCode, Header};
use super::varint::{MAX_VARINT, encode_varint};
use super::websocket::{MAX_HEADER, OpCode, encode_header};
use crate::types::unix_ms;

pub use super::pb::envelope::Payload;

/// Reads one frame's bytes. A payload of a kind this build does not know
/// comes back as `payload: None`.
pub fn decode(frame: &[u8]) -> Result<Envelope, prost::DecodeError> {
    Envelope::decode(frame)
}

/// Reads back what [`encode`] or [`frame_encoded`] made.
#[must_use]
pub(crate) fn decode_message(message: &[u8]) -> Option<Envelope> {
    let header = match message.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let frame = Frames::new(message.get(header..)?).next()?.ok()?;
    decode(frame).ok()
}

/// The finished WebSocket message that carries one envelope. The same bytes
/// serve every recipient.
#[must_use]
pub fn encode(envelope: &Envelope) -> Bytes {
    message_with(envelope.encoded_len(), |out| {
        // A BytesMut grows, so encoding into it cannot fail.
        envelope.encode_raw(out);
    })
}

/// As [`encode`], for an envelope that is bytes already.
#[must_use]
pub(crate) fn frame_encoded(envelope: &[u8]) -> Bytes {
    message_with(envelope.len(), |out| out.put_slice(envelope))
}

fn message_with(length: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut prefix = [0_u8; MAX_VARINT];
    let mut cursor = &mut prefix[..];
    encode_varint(u64::try_from(length).unwrap_or(u64::MAX), &mut cursor);
    let unused = cursor.len();
    let prefix = prefix.get(..MAX_VARINT - unused).unwrap_or_default();
    let mut out = BytesMut::with_capacity(MAX_HEADER + prefix.len() + length);
    encode_header(OpCode::Binary, prefix.len() + length, &mut out);
    out.put_slice(prefix);
    write(&mut out);
    out.freeze()
}

/// Wraps a payload of the server, stamped with its clock; `trace_id` is the
/// one of the frame it answers, or empty.
#[must_use]
pub fn reply(trace_id: &str, payload: Payload) -> Envelope {
    let header = Header { trace_id: trace_id.to_owned(), timestamp: unix_ms(), ..Header::default() };
    Envelope { header: Some(header), payload: Some(payload) }
}

/// An error without references.
#[must_use]
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> Error {
    Error { code: code.into(), message: message.into(), ..Error::default() }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::inbound::{Event, Inbound};
    use super::super::websocket::as_client;
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        for size in [0, 1, 100, 125, 126, 70_000] {
            let custom = super::super::pb::Custom { payload: vec![7; size].into(), ..Default::default() };
            let envelope = reply("t", Payload::Custom(custom));
            let wire = encode(&envelope);
            assert_eq!(wire, frame_encoded(&envelope.encode_to_vec()));
            assert_eq!(decode_message(&wire).unwrap(), envelope);
            let mut wire = as_client(&wire);
            let mut seen = 0;
            let fed = Inbound::default().feed(&mut wire, 1 << 20, |event| {
                let Event::Message(message) = event else { panic!("{event:?}") };
                let frames: Vec<_> = Frames::new(message).collect::<Result<_, _>>().unwrap();
                assert_eq!(decode(frames[0]).unwrap(), envelope);
                seen += frames.len();
                ControlFlow::Continue(())
            });
            assert_eq!((fed, seen), (Ok(ControlFlow::Continue(())), 1));
        }
    }
}
