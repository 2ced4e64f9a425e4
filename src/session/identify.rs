//! The first frame of a client that must say who it is, or what it has.

use std::ops::ControlFlow;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::dispatch::Fatal;
use crate::types::CloseReason;
use crate::wire::pb::Identify;
use crate::wire::{Event, Frames, HEARTBEAT_ECHO, Inbound, Payload, decode, pong_frame};

/// What was read up to and past the `Identify`.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The frame that was waited for, if it came first.
    pub(super) identify: Option<Identify>,
    /// Frames behind it, as messages, to be taken once the client is known.
    pub(super) backlog: Vec<Vec<u8>>,
    /// Bytes not yet a message.
    pub(super) inbound: Inbound,
    /// Bytes nobody has looked at.
    pub(super) early: Vec<u8>,
    /// The peer's Close, and its code.
    pub(super) close: Option<Option<u16>>,
    answers: Vec<u8>,
}

/// Reads until the first frame that is no heartbeat. It is either the
/// `Identify` or left in the backlog. The caller holds the deadline.
pub(super) async fn read_opening(
    stream: &mut TcpStream,
    opening: &mut Opening,
    early: Vec<u8>,
    max_message: usize,
) -> Result<(), Fatal> {
    let mut chunk = early;
    loop {
        opening.feed(&mut chunk, max_message)?;
        if !opening.answers.is_empty() {
            let answers = std::mem::take(&mut opening.answers);
            stream.write_all(&answers).await.map_err(|_| gone())?;
        }
        if opening.identify.is_some() || !opening.backlog.is_empty() || opening.close.is_some() {
            return Ok(());
        }
        chunk.clear();
        chunk.reserve(4096);
        if stream.read_buf(&mut chunk).await.map_err(|_| gone())? == 0 {
            return Err(gone());
        }
    }
}

fn gone() -> Fatal {
    (CloseReason::PeerGone, String::new())
}

impl Opening {
    fn feed(&mut self, bytes: &mut [u8], max_message: usize) -> Result<(), Fatal> {
        let mut inbound = std::mem::take(&mut self.inbound);
        let mut broken = None;
        let fed = inbound.feed(bytes, max_message, |event| match self.take(event) {
            Ok(flow) => flow,
            Err(fatal) => {
                broken = Some(fatal);
                ControlFlow::Break(())
            }
        });
        self.inbound = inbound;
        match (fed, broken) {
            (_, Some(fatal)) => Err(fatal),
            (Err(violation), None) => Err((violation.close_reason(), violation.to_string())),
            (Ok(_), None) => Ok(()),
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<ControlFlow<()>, Fatal> {
        match event {
            Event::Ping(payload) => self.answers.extend_from_slice(&pong_frame(payload)),
            Event::Pong => {}
            Event::Close(code) => self.close = Some(code),
            Event::Message(message) if self.identify.is_some() || !self.backlog.is_empty() => {
                self.backlog.push(message.to_vec());
            }
            Event::Message(message) => self.take_first(message)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_first(&mut self, message: &[u8]) -> Result<(), Fatal> {
        let invalid = |text: String| (CloseReason::InvalidPayload, text);
        let mut frames = Frames::new(message);
        while let Some(frame) = frames.next() {
            let frame = frame.map_err(|error| invalid(error.to_string()))?;
            if frame.is_empty() {
                self.answers.extend_from_slice(&HEARTBEAT_ECHO);
                continue;
            }
            let envelope = decode(frame).map_err(|error| invalid(format!("broken envelope: {error}")))?;
            if let Some(Payload::Identify(identify)) = envelope.payload {
                self.identify = Some(identify);
            } else {
                let mut first = Vec::with_capacity(frame.len() + 10);
                crate::wire::encode_varint(u64::try_from(frame.len()).unwrap_or(u64::MAX), &mut first);
                first.extend_from_slice(frame);
                self.backlog.push(first);
            }
            let rest = frames.rest();
            if !rest.is_empty() {
                self.backlog.push(rest.to_vec());
            }
            return Ok(());
        }
        Ok(())
    }
}
