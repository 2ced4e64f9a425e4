//! Varints, frames and envelopes: nothing panics, what is read can be written,
//! and what is written reads back.

use prost::Message;
use tidegate::internal::{Frames, decode, decode_varint, encode, encode_varint};
use tidegate::proto::Envelope;

/// Holds `bytes` against every promise: as a number, as a WebSocket message,
/// and as one envelope.
pub(crate) fn target(bytes: &[u8]) {
    number(bytes);
    message(bytes);
    if let Ok(envelope) = decode(bytes) {
        round_trip(&envelope);
    }
}

fn number(bytes: &[u8]) {
    let Ok(Some((value, used))) = decode_varint(bytes) else { return };
    let mut written = Vec::new();
    encode_varint(value, &mut written);
    assert_eq!(written, bytes[..used], "{value} has one form only");
}

fn message(bytes: &[u8]) {
    let mut written = Vec::new();
    let mut frames = Frames::new(bytes);
    while let Some(frame) = frames.next() {
        let Ok(frame) = frame else {
            assert!(frames.next().is_none(), "nothing follows an error");
            return;
        };
        encode_varint(frame.len() as u64, &mut written);
        written.extend_from_slice(frame);
        assert_eq!(written.len() + frames.rest().len(), bytes.len(), "a frame and the rest make the whole");
        if let Ok(envelope) = decode(frame) {
            round_trip(&envelope);
        }
    }
    assert_eq!(written, bytes, "frames fill a message exactly");
}

fn round_trip(envelope: &Envelope) {
    let written = encode(envelope);
    assert_eq!(written[0], 0x82, "one whole binary message");
    let header = match written[1] {
        127 => 10,
        126 => 4,
        length => {
            assert!(length < 126, "a server frame is not masked");
            2
        }
    };
    let frames: Vec<&[u8]> = Frames::new(&written[header..]).collect::<Result<_, _>>().expect("whole frames");
    // An empty envelope is a frame of length 0, which is the heartbeat.
    let [frame] = frames.as_slice() else { panic!("{} frames", frames.len()) };
    assert_eq!(frame.len(), envelope.encoded_len());
    assert_eq!(&decode(frame).expect("what was written"), envelope);
}
