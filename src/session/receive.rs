//! WebSocket messages, taken apart into frames and charged for.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Context;
use super::bucket::Bucket;
use super::closing::Closing;
use crate::hub::{Frame, Peer};
use crate::telemetry::{FrameKind, metrics};
use crate::types::{CloseReason, monotonic_ms};
use crate::wire::{Event, Frames, heartbeat_echo, pong_frame};

/// Takes whole WebSocket messages apart.
pub(super) struct Receiver<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) peer: &'a Arc<Peer>,
    pub(super) bucket: &'a mut Bucket,
    pub(super) now_ms: u64,
    /// Set once the connection is to end.
    pub(super) closing: Option<Box<Closing>>,
    /// Whether a whole message came.
    pub(super) whole: bool,
}

impl<'a> Receiver<'a> {
    /// For what comes now.
    pub(super) fn new(context: &'a Arc<Context>, peer: &'a Arc<Peer>, bucket: &'a mut Bucket) -> Self {
        Self { context, peer, bucket, now_ms: monotonic_ms(), closing: None, whole: false }
    }

    /// Takes one event; breaks when the connection is to end.
    pub(super) fn take(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Message(message) => {
                self.whole = true;
                let mut beats = 0;
                for frame in Frames::new(message) {
                    let taken = match frame {
                        Ok([]) => {
                            beats += 1;
                            Ok(())
                        }
                        Ok(frame) => self.context.take_frame(self.peer, frame),
                        Err(error) => Err((CloseReason::InvalidPayload, error.to_string())),
                    };
                    if let Err((reason, text)) = taken {
                        return self.close(Closing::new(reason, &text));
                    }
                    self.charge()?;
                }
                self.echo(beats);
                ControlFlow::Continue(())
            }
            Event::Ping(payload) => {
                self.charge()?;
                metrics().count_in(FrameKind::WebSocket);
                self.peer.answer(Frame::control(pong_frame(payload), FrameKind::WebSocket));
                ControlFlow::Continue(())
            }
            Event::Pong => self.charge(),
            Event::Close(code) => self.close(Closing::echo(code)),
        }
    }

    /// Heartbeats of one message are echoed in one message.
    fn echo(&self, beats: usize) {
        if beats > 0 {
            metrics().frames_in_many(FrameKind::Heartbeat, beats);
            self.peer.answer(Frame::control(heartbeat_echo(beats), FrameKind::Heartbeat));
        }
    }

    fn charge(&mut self) -> ControlFlow<()> {
        if self.bucket.take(self.now_ms) {
            return ControlFlow::Continue(());
        }
        self.close(Closing::new(CloseReason::RateLimited, CloseReason::RateLimited.row().text))
    }

    fn close(&mut self, closing: Box<Closing>) -> ControlFlow<()> {
        self.closing = Some(closing);
        ControlFlow::Break(())
    }
}
