//! RFC 6455 frames as a server sees them: strict about what clients send,
//! and building the unmasked frames it sends.
//!
//! Own code rather than a library's, because it is the hot path: header and
//! payload are read in place from a shared buffer, and one finished frame
//! serves every recipient.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::CloseReason;

/// Most bytes of a frame header.
pub(crate) const MAX_HEADER: usize = 14;

/// The finished WebSocket message that answers the heartbeat `00`.
pub const HEARTBEAT_ECHO: Bytes = Bytes::from_static(&[0x82, 0x01, 0x00]);

/// What a client did wrong in WebSocket framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Broken framing; the text names the rule.
    #[error("{0}")]
    Framing(&'static str),
    /// A text message.
    #[error("text message; only binary messages are spoken")]
    Text,
    /// Invalid UTF-8 in a close reason.
    #[error("close reason is not UTF-8")]
    Utf8,
    /// A message above the limit.
    #[error("message too large")]
    TooLarge,
    /// More fragments than anybody needs.
    #[error("too many fragments")]
    Fragments,
}

impl Violation {
    /// How the connection ends.
    #[must_use]
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::Framing(_) => CloseReason::Protocol,
            Self::Text => CloseReason::NotBinary,
            Self::Utf8 => CloseReason::InvalidPayload,
            Self::TooLarge => CloseReason::TooLarge,
            Self::Fragments => CloseReason::Policy,
        }
    }
}

/// The defined opcodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpCode {
    /// More of a fragmented message.
    Continuation,
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// The end.
    Close,
    /// To be answered by a pong.
    Ping,
    /// An answer.
    Pong,
}

impl OpCode {
    const fn parse(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn nibble(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Close, ping or pong.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A client's frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: OpCode,
    /// Masking key.
    pub mask: [u8; 4],
    /// Payload bytes.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

/// Reads a client's frame header; `None` = more bytes are needed. Each rule is
/// checked as soon as its byte is there.
pub fn parse_header(input: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(&first) = input.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::Framing("reserved bit set"));
    }
    let opcode = OpCode::parse(first & 0x0f).ok_or(Violation::Framing("reserved opcode"))?;
    let fin = first & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::Framing("fragmented control frame"));
    }
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Framing("unmasked client frame"));
    }
    let short = second & 0x7f;
    if opcode.is_control() && short > 125 {
        return Err(Violation::Framing("control frame above 125 bytes"));
    }
    let (length, at) = match short {
        126 => {
            let Some(&bytes) = input.get(2..).and_then(<[u8]>::first_chunk::<2>) else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(bytes));
            if length < 126 {
                return Err(Violation::Framing("length not in its shortest form"));
            }
            (length, 4)
        }
        127 => {
            let Some(&bytes) = input.get(2..).and_then(<[u8]>::first_chunk::<8>) else { return Ok(None) };
            let length = u64::from_be_bytes(bytes);
            if length >> 63 != 0 {
                return Err(Violation::Framing("length with its top bit set"));
            }
            if length <= u64::from(u16::MAX) {
                return Err(Violation::Framing("length not in its shortest form"));
            }
            (length, 10)
        }
        length => (u64::from(length), 2),
    };
    // The length is judged before the mask arrives, so that an oversized
    // message is refused on its header alone.
    let mask = input.get(at..).and_then(<[u8]>::first_chunk::<4>).copied();
    Ok(Some(Header { fin, opcode, mask: mask.unwrap_or_default(), length, size: at + 4 }))
}

/// Removes the mask in place.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends the header of a server's unfragmented frame.
pub(crate) fn encode_header(opcode: OpCode, length: usize, out: &mut impl BufMut) {
    out.put_u8(0x80 | opcode.nibble());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
        }
    }
}

/// The finished message that echoes `beats` heartbeats.
#[must_use]
pub(crate) fn heartbeat_echo(beats: usize) -> Bytes {
    if beats == 1 {
        return HEARTBEAT_ECHO;
    }
    let mut out = BytesMut::with_capacity(MAX_HEADER + beats);
    encode_header(OpCode::Binary, beats, &mut out);
    out.put_bytes(0, beats);
    out.freeze()
}

/// A Close frame; `text` is cut to what a control frame holds.
#[must_use]
pub(crate) fn close_frame(code: u16, text: &str) -> Bytes {
    let text = text.get(..text.len().min(123)).unwrap_or_default();
    let mut out = BytesMut::with_capacity(4 + text.len());
    encode_header(OpCode::Close, 2 + text.len(), &mut out);
    out.put_u16(code);
    out.put_slice(text.as_bytes());
    out.freeze()
}

/// The answer to a ping.
#[must_use]
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + payload.len());
    encode_header(OpCode::Pong, payload.len(), &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// Reads the payload of a Close frame: the code to echo, `None` when it came
/// without one.
pub(super) fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((&code, text)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::Framing("close code of one byte")) };
    };
    let code = u16::from_be_bytes(code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Framing("close code that must not be sent"));
    }
    std::str::from_utf8(text).map_err(|_| Violation::Utf8)?;
    Ok(Some(code))
}

/// A server's finished frame as if a client had sent it: with the mask bit
/// and a zero mask.
#[cfg(test)]
pub(crate) fn as_client(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    frame[1] |= 0x80;
    frame.splice(header..header, [0; 4]);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_broken_header_is_named() {
        let framing = |bytes: &[u8]| matches!(parse_header(bytes), Err(Violation::Framing(_)));
        assert!(framing(&[0xc2]), "RSV1");
        assert!(framing(&[0x83]), "reserved data opcode");
        assert!(framing(&[0x8b]), "reserved control opcode");
        assert!(framing(&[0x09, 0x80]), "fragmented ping");
        assert!(framing(&[0x82, 0x01]), "unmasked");
        assert!(framing(&[0x89, 0xfe]), "long ping");
        assert!(framing(&[0x82, 0xfe, 0, 125]), "not minimal, 16 bit");
        assert!(framing(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), "not minimal, 64 bit");
        assert!(framing(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), "top bit");
    }

    #[test]
    fn close_payloads() {
        assert_eq!(parse_close(b""), Ok(None));
        assert_eq!(parse_close(&[0x03, 0xe8]), Ok(Some(1000)));
        assert!(parse_close(&[3]).is_err());
        for bad in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(parse_close(&bad.to_be_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse_close(&[0x03, 0xe8, 0xff]), Err(Violation::Utf8));
    }

    proptest! {
        #[test]
        fn unmasking_twice_is_nothing(mut payload: Vec<u8>, mask: [u8; 4]) {
            let original = payload.clone();
            unmask(&mut payload, mask);
            for (i, (&masked, &byte)) in payload.iter().zip(&original).enumerate() {
                prop_assert_eq!(masked, byte ^ mask[i % 4]);
            }
            unmask(&mut payload, mask);
            prop_assert_eq!(payload, original);
        }

        #[test]
        fn server_headers_read_back(length in 0_usize..200_000) {
            let mut out = Vec::new();
            encode_header(OpCode::Binary, length, &mut out);
            // A client's header differs by the mask bit and the mask.
            out[1] |= 0x80;
            out.extend_from_slice(&[0; 4]);
            let header = parse_header(&out).unwrap().unwrap();
            prop_assert_eq!(usize::try_from(header.length).unwrap(), length);
            prop_assert_eq!(header.size, out.len());
        }
    }
}
