//! The bounded queue of finished frames towards one connection.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::telemetry::{FrameKind, metrics};
use crate::types::CloseReason;

/// What a frame is worth when there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Answers and protocol frames: never dropped while the connection lives.
    Control,
    /// A copy of a stored message.
    Push,
    /// Typing and custom payloads: dropped first.
    Ephemeral,
}

/// One finished WebSocket frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// The bytes as they go on the wire.
    pub bytes: Bytes,
    /// Its worth.
    pub class: Class,
    /// How it is counted.
    pub kind: FrameKind,
}

impl Frame {
    /// An answer or protocol frame.
    #[must_use]
    pub(crate) const fn control(bytes: Bytes, kind: FrameKind) -> Self {
        Self { bytes, class: Class::Control, kind }
    }
}

/// How a connection is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Why.
    pub reason: CloseReason,
    /// What the `Kick` says, where one is sent.
    pub may_reconnect: bool,
}

impl Ending {
    /// With the advice of the close table.
    #[must_use]
    pub(crate) const fn of(reason: CloseReason) -> Self {
        Self { reason, may_reconnect: reason.row().may_reconnect }
    }
}

/// Bounds of one outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxLimits {
    /// Most bytes queued and not yet in the kernel.
    pub bytes: u32,
    /// Most frames queued and not yet in the kernel.
    pub frames: u32,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    /// Queued here or taken by the connection and not yet in the kernel.
    bytes: u32,
    frames: u32,
    waker: Option<Waker>,
    ending: Option<Ending>,
    closed: bool,
}

/// Many senders, one connection that drains. Bytes count until the kernel has
/// them, so a reader that stalls is seen by its bound.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
}

impl Outbox {
    /// Queues a frame and wakes the connection. A full outbox drops an
    /// ephemeral frame and ends the connection as a slow consumer on any
    /// other. Returns whether it was queued.
    pub(crate) fn push(&self, frame: Frame, limits: OutboxLimits) -> bool {
        let size = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let is_push = frame.class == Class::Push;
        if is_push {
            metrics().copies_enqueued.increment(1);
        }
        let mut state = self.state.lock();
        if state.closed || state.ending.is_some() {
            drop(state);
            if is_push {
                metrics().copies_dropped_closed.increment(1);
            }
            return false;
        }
        // Half the room is kept from frames that were never promised.
        let share = if frame.class == Class::Ephemeral { 2 } else { 1 };
        // One frame always fits: what a client asked for must not end it. For
        // the same reason answers are bounded in bytes alone.
        let many = frame.class != Class::Control && state.frames >= limits.frames / share;
        let too_much = many || state.bytes.saturating_add(size) > limits.bytes / share;
        let full = too_much && state.frames > 0;
        if full && frame.class == Class::Ephemeral {
            drop(state);
            metrics().dropped_ephemeral.increment(1);
            return false;
        }
        if full {
            state.ending = Some(Ending::of(CloseReason::SlowConsumer));
        } else {
            state.bytes += size;
            state.frames += 1;
            state.queue.push_back(frame);
        }
        let waker = state.waker.take();
        drop(state);
        match (full, is_push) {
            (true, true) => metrics().copies_dropped_slow.increment(1),
            (false, true) => metrics().copies_queued.increment(1.0),
            _ => {}
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        !full
    }

    /// Puts a frame before everything queued: `Ready` goes first, however
    /// early a delivery came. Not bounded; called once, before the connection
    /// runs.
    pub(crate) fn push_front(&self, frame: Frame) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_add(u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX));
        state.frames += 1;
        state.queue.push_front(frame);
    }

    /// Asks the connection to end after what is queued; the first asker wins.
    /// Returns whether that was this one.
    pub(crate) fn end(&self, ending: Ending) -> bool {
        let mut state = self.state.lock();
        let first = state.ending.is_none() && !state.closed;
        if first {
            state.ending = Some(ending);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        first
    }

    /// Takes every queued frame, and remembers whom to wake for the next one.
    /// Called by the connection's task only, which gives back what the kernel
    /// did not take ([`Self::restore`]).
    pub(crate) fn take(&self, waker: &Waker) -> (VecDeque<Frame>, Option<Ending>) {
        let mut state = self.state.lock();
        match &mut state.waker {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
        (std::mem::take(&mut state.queue), state.ending)
    }

    /// Gives back a taken queue, after the kernel took `frames` whole frames
    /// of `bytes` in all. An empty one gives back its memory for reuse.
    pub(crate) fn restore(&self, mut queue: VecDeque<Frame>, bytes: usize, frames: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        state.frames = state.frames.saturating_sub(u32::try_from(frames).unwrap_or(u32::MAX));
        queue.append(&mut state.queue);
        state.queue = queue;
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn shrink(&self) {
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
    }

    /// No more frames: the connection is gone. Returns what was left.
    pub(crate) fn close(&self) -> VecDeque<Frame> {
        let mut state = self.state.lock();
        state.closed = true;
        state.waker = None;
        std::mem::take(&mut state.queue)
    }

    /// Whether the connection is gone.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Frames and bytes not yet in the kernel.
    #[must_use]
    pub(crate) fn backlog(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.frames, state.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 100, frames: 4 };

    fn frame(class: Class, size: usize) -> Frame {
        Frame { bytes: vec![0; size].into(), class, kind: FrameKind::Other }
    }

    #[test]
    fn bounded_in_bytes_and_count() {
        let outbox = Outbox::default();
        assert!(outbox.push(frame(Class::Push, 60), LIMITS));
        assert!(!outbox.push(frame(Class::Push, 60), LIMITS), "too many bytes");
        assert_eq!(outbox.take(Waker::noop()).1, Some(Ending::of(CloseReason::SlowConsumer)));

        let outbox = Outbox::default();
        for _ in 0..4 {
            assert!(outbox.push(frame(Class::Push, 1), LIMITS));
        }
        assert!(outbox.push(frame(Class::Control, 1), LIMITS), "an answer counts its bytes only");
        assert!(!outbox.push(frame(Class::Push, 1), LIMITS), "too many frames");
    }

    #[test]
    fn ephemeral_frames_go_first_and_end_nothing() {
        let outbox = Outbox::default();
        assert!(outbox.push(frame(Class::Push, 60), LIMITS));
        assert!(!outbox.push(frame(Class::Ephemeral, 1), LIMITS));
        assert!(outbox.push(frame(Class::Push, 10), LIMITS));
        assert_eq!(outbox.take(Waker::noop()).1, None);
    }

    #[test]
    fn bytes_count_until_the_kernel_has_them() {
        let outbox = Outbox::default();
        assert!(outbox.push(frame(Class::Push, 80), LIMITS));
        let (mut out, _) = outbox.take(Waker::noop());
        assert_eq!(outbox.backlog(), (1, 80));
        assert!(!outbox.push(frame(Class::Ephemeral, 30), LIMITS));
        out.clear();
        outbox.restore(out, 80, 1);
        assert!(outbox.push(frame(Class::Ephemeral, 30), LIMITS));
    }

    #[test]
    fn what_the_kernel_did_not_take_stays_in_front() {
        let outbox = Outbox::default();
        assert!(outbox.push(frame(Class::Push, 1), LIMITS));
        let (out, _) = outbox.take(Waker::noop());
        assert!(outbox.push(frame(Class::Push, 2), LIMITS));
        outbox.restore(out, 0, 0);
        let sizes: Vec<_> = outbox.take(Waker::noop()).0.iter().map(|f| f.bytes.len()).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn the_first_ending_wins_and_closed_takes_nothing() {
        let outbox = Outbox::default();
        assert!(outbox.end(Ending::of(CloseReason::Replaced)));
        assert!(!outbox.end(Ending::of(CloseReason::Shutdown)));
        assert!(!outbox.push(frame(Class::Control, 1), LIMITS));
        let (_, ending) = outbox.take(Waker::noop());
        assert_eq!(ending.map(|e| e.reason), Some(CloseReason::Replaced));
    }
}
