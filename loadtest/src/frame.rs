//! WebSocket frames as a client writes and reads them, no more than this
//! program needs.

use anyhow::{Result, bail};
use prost::Message;
use tidegate::internal::{Payload, encode_varint, unmask};
use tidegate::proto::{Envelope, MessageType, SendMessageReq, send_message_req};

/// Any mask does, and one that never changes lets frames be built once.
const MASK: [u8; 4] = [0x5a, 0x13, 0xc6, 0x2f];

/// A masked binary frame holding the heartbeat: one zero byte.
pub const HEARTBEAT: [u8; 7] = [0x82, 0x81, 0x5a, 0x13, 0xc6, 0x2f, 0x5a];

/// A masked binary frame holding one envelope.
#[must_use]
pub fn envelope(payload: Payload) -> Vec<u8> {
    around(&Envelope { header: None, payload: Some(payload) }.encode_to_vec())
}

/// What a ping says.
pub(crate) const PING: &[u8] = b"still there?";

/// The same in two fragments, cut anywhere, with a ping between them.
pub(crate) fn in_fragments(payload: Payload) -> Vec<u8> {
    let whole = message(&Envelope { header: None, payload: Some(payload) }.encode_to_vec());
    let (first, rest) = whole.split_at(fastrand::usize(..whole.len()));
    [masked(0x02, first), masked(0x89, PING), masked(0x80, rest)].concat()
}

/// A text message to be sent.
pub(crate) fn text(conversation: &str, client_msg_id: &str, text: &str) -> Payload {
    Payload::Send(SendMessageReq {
        conversation_id: conversation.to_owned(),
        client_msg_id: client_msg_id.to_owned(),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent(text.to_owned())),
        ..SendMessageReq::default()
    })
}

/// A masked binary frame around an envelope that is bytes already; around
/// nothing, it is the heartbeat.
#[must_use]
pub fn around(envelope: &[u8]) -> Vec<u8> {
    masked(0x82, &message(envelope))
}

/// One frame of which a decimal number is written anew before each use:
/// building it costs nothing per message.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the digits lie, masked like the rest.
    at: usize,
    /// Which byte of the mask the first digit meets.
    phase: usize,
}

impl Template {
    /// `payload` must hold [`Template::PLACE`] once.
    pub(crate) fn new(payload: Payload) -> Result<Self> {
        let message = message(&Envelope { header: None, payload: Some(payload) }.encode_to_vec());
        let place = Self::PLACE.as_bytes();
        let Some(phase) = message.windows(place.len()).position(|window| window == place) else {
            bail!("no place for the number");
        };
        let bytes = masked(0x82, &message);
        Ok(Self { at: bytes.len() - message.len() + phase, bytes, phase })
    }

    /// A text message whose id is `prefix` and the number.
    pub(crate) fn text(conversation: &str, prefix: &str, text: &str) -> Result<Self> {
        Self::new(self::text(conversation, &format!("{prefix}{}", Self::PLACE), text))
    }

    /// Where the number goes.
    pub(crate) const PLACE: &'static str = "##########";

    /// Appends the frame with `number` in it.
    pub(crate) fn write(&mut self, number: u32, out: &mut Vec<u8>) {
        let digits = format!("{number:010}");
        let place = self.bytes.iter_mut().skip(self.at);
        let mask = MASK.iter().cycle().skip(self.phase % MASK.len());
        for ((byte, digit), key) in place.zip(digits.bytes()).zip(mask) {
            *byte = digit ^ key;
        }
        out.extend_from_slice(&self.bytes);
    }
}

/// A server's frame at the start of `input`: opcode, header bytes and payload
/// bytes; `None` = more bytes are needed.
pub(crate) fn parse(input: &[u8]) -> Result<Option<(u8, usize, usize)>> {
    let &[first, second, ref rest @ ..] = input else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        bail!("a frame the server does not send: {first:02x} {second:02x}");
    }
    let (header, length) = match second {
        126 => match rest.first_chunk::<2>() {
            Some(&length) => (4, usize::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(&length) => (10, usize::try_from(u64::from_be_bytes(length))?),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    Ok((input.len() >= header + length).then_some((first & 0x0f, header, length)))
}

/// A Tidegate frame: the length of the envelope before it.
fn message(envelope: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelope.len() + 5);
    encode_varint(u64::try_from(envelope.len()).unwrap_or(u64::MAX), &mut out);
    out.extend_from_slice(envelope);
    out
}

/// `first`: FIN and the opcode.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0xfe);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let mut body = payload.to_vec();
    unmask(&mut body, MASK);
    out.extend_from_slice(&body);
    out
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use tidegate::internal::{Event, Frames, Inbound, decode};
    use tidegate::proto::SendMessageReq;

    use super::*;

    #[test]
    fn the_gateway_reads_the_number_back() {
        let request = |id: &str| {
            Payload::Send(SendMessageReq { client_msg_id: id.to_owned(), ..SendMessageReq::default() })
        };
        let mut template = Template::new(request(&format!("run-{}", Template::PLACE))).unwrap();
        let mut bytes = Vec::new();
        template.write(7, &mut bytes);
        template.write(4_000_000_000, &mut bytes);
        let mut seen = Vec::new();
        let flow = Inbound::default().feed(&mut bytes, 1024, |event| {
            let Event::Message(message) = event else { panic!("{event:?}") };
            seen.extend(Frames::new(message).map(|frame| decode(frame.unwrap()).unwrap().payload.unwrap()));
            ControlFlow::Continue(())
        });
        assert!(flow.unwrap().is_continue());
        assert_eq!(seen, [request("run-0000000007"), request("run-4000000000")]);
    }

    #[test]
    fn the_heartbeat_is_one_zero_byte() {
        assert_eq!(HEARTBEAT[..], around(&[]));
    }

    #[test]
    fn server_frames_are_cut_at_their_ends() {
        assert_eq!(parse(&[0x82, 1, 0, 0x82]).unwrap(), Some((2, 2, 1)));
        assert_eq!(parse(&[0x82, 126, 0]).unwrap(), None);
        assert_eq!(parse(&[0x82, 2, 0]).unwrap(), None);
        assert!(parse(&[0x82, 0x81]).is_err());
    }
}
