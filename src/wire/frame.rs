//! Tidegate frames inside one WebSocket message: `varint(length) ++ bytes`,
//! one or more, filling the message exactly.

use super::varint::{VarintError, decode_varint};

/// A message that is not a sequence of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message without any frame.
    #[error("empty message")]
    Empty,
    /// A broken length prefix.
    #[error("frame length: {0}")]
    Length(#[from] VarintError),
    /// The length points beyond the end of the message.
    #[error("frame length beyond the end of the message")]
    Truncated,
}

/// Iterates over the frames of one message; an empty slice is a heartbeat.
/// Ends after the first error.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    fresh: bool,
}

impl<'a> Frames<'a> {
    /// Over one whole WebSocket message.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, fresh: true }
    }

    /// What was not iterated over yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn step(&mut self) -> Result<&'a [u8], FrameError> {
        let (length, used) = decode_varint(self.rest)?.ok_or(FrameError::Truncated)?;
        let body = self.rest.get(used..).unwrap_or_default();
        let length = usize::try_from(length).map_err(|_| FrameError::Truncated)?;
        let (frame, rest) = body.split_at_checked(length).ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let fresh = std::mem::replace(&mut self.fresh, false);
        if self.rest.is_empty() {
            return fresh.then_some(Err(FrameError::Empty));
        }
        let step = self.step();
        if step.is_err() {
            self.rest = &[];
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::super::varint::encode_varint;
    use super::*;

    #[test]
    fn several_frames_and_a_heartbeat() {
        let mut message = vec![0];
        encode_varint(3, &mut message);
        message.extend_from_slice(b"abc");
        let frames: Result<Vec<_>, _> = Frames::new(&message).collect();
        assert_eq!(frames.unwrap(), vec![&b""[..], b"abc"]);
    }

    #[test]
    fn broken_messages_end_with_one_error() {
        for (message, error) in [
            (&b""[..], FrameError::Empty),
            (&[5, 1, 2], FrameError::Truncated),
            (&[0x80], FrameError::Truncated),
            (&[0x80, 0], FrameError::Length(VarintError::Overlong)),
        ] {
            let all: Vec<_> = Frames::new(message).collect();
            assert_eq!(all, vec![Err(error)]);
        }
    }
}
