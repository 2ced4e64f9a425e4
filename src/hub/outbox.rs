//! The bounded queue of finished frames towards one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;

use super::direct::{Direct, prefetch};
use crate::message::{Mark, Places};
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
    /// Which stored message it is a copy of.
    pub mark: Option<Arc<Mark>>,
}

impl Frame {
    /// A copy of a stored message.
    #[must_use]
    pub(crate) const fn copy(bytes: Bytes, mark: Arc<Mark>) -> Self {
        Self { bytes, class: Class::Push, kind: FrameKind::Push, mark: Some(mark) }
    }

    /// Something that is not stored anywhere.
    #[must_use]
    pub(crate) const fn ephemeral(bytes: Bytes) -> Self {
        Self { bytes, class: Class::Ephemeral, kind: FrameKind::Ephemeral, mark: None }
    }

    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// An answer or protocol frame.
    #[must_use]
    pub(crate) const fn control(bytes: Bytes, kind: FrameKind) -> Self {
        Self { bytes, class: Class::Control, kind, mark: None }
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

/// What is queued, and how far the connection is in its conversations. A
/// fan-out waits for the memory of each, so what it looks at is one cache line:
/// the lock, which is in front, and all down to the places (a test of
/// [`Peer`](super::Peer) says where).
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct State {
    /// Where a fan-out writes by itself while nothing is queued.
    pub(super) direct: Option<Direct>,
    /// Queued here or taken by the connection and not yet in the kernel.
    pub(super) frames: u32,
    pub(super) ending: Option<Ending>,
    pub(super) closed: bool,
    /// `Ready` is not queued yet, and the places are not known.
    pub(super) opening: bool,
    pub(super) places: Places,
    pub(super) queue: VecDeque<Frame>,
    pub(super) waker: Option<Waker>,
    /// Queued here or taken by the connection and not yet in the kernel.
    pub(super) bytes: u32,
    /// Bytes of the first frame that have left already.
    pub(super) offset: u32,
}

impl State {
    /// Whether frames are queued no more.
    pub(super) const fn is_over(&self) -> bool {
        self.closed || self.ending.is_some()
    }

    /// Queues whatever it is.
    pub(super) fn enqueue(&mut self, frame: Frame) {
        self.bytes = self.bytes.saturating_add(frame.size());
        self.frames += 1;
        self.queue.push_back(frame);
    }

    /// Queues a frame that is no copy of a stored message; returns whether.
    pub(super) fn push(&mut self, frame: Frame, limits: OutboxLimits) -> bool {
        if self.is_over() {
            return false;
        }
        // Half the room is kept from frames that were never promised. One
        // frame always fits: what a client asked for must not end it. For the
        // same reason answers are bounded in bytes alone, and copies make way.
        if frame.class == Class::Ephemeral {
            let many = self.frames >= limits.frames / 2;
            let full = (many || self.lacks_room(&frame, limits.bytes / 2)) && self.frames > 0;
            if full {
                metrics().dropped_ephemeral.increment(1);
            } else {
                self.enqueue(frame);
            }
            return !full;
        }
        if self.lacks_room(&frame, limits.bytes) {
            self.make_way(limits);
        }
        let full = self.is_over() || self.lacks_room(&frame, limits.bytes) && self.frames > 0;
        if full {
            self.ending.get_or_insert(Ending::of(CloseReason::SlowConsumer));
        } else {
            self.enqueue(frame);
        }
        !full
    }

    fn lacks_room(&self, frame: &Frame, bytes: u32) -> bool {
        self.bytes.saturating_add(frame.size()) > bytes
    }
}

/// What a connection's task has taken to write.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Every queued frame.
    pub queue: VecDeque<Frame>,
    /// Bytes of the first one that have left already.
    pub offset: u32,
    /// How the connection is asked to end after them.
    pub ending: Option<Ending>,
}

/// Many senders, one connection that drains. Bytes count until the kernel has
/// them, so a reader that stalls is seen by its bound.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(super) state: Mutex<State>,
}

impl Outbox {
    /// Of a connection that is not told `Ready` yet: see [`Self::open`].
    #[must_use]
    pub(crate) fn opening() -> Self {
        Self { state: Mutex::new(State { opening: true, ..State::default() }) }
    }

    /// Queues a frame that is no copy of a stored message, and wakes the
    /// connection. A full outbox drops an ephemeral frame; for any other copies
    /// make way, and where that is not enough the connection ends as a slow
    /// consumer. Returns whether it was queued.
    pub(crate) fn push(&self, frame: Frame, limits: OutboxLimits) -> bool {
        let mut state = self.state.lock();
        let queued = state.push(frame, limits);
        wake(state);
        queued
    }

    /// Asks the connection to end after what is queued; the first asker wins.
    /// Returns whether that was this one.
    pub(crate) fn end(&self, ending: Ending) -> bool {
        let mut state = self.state.lock();
        let first = state.ending.is_none() && !state.closed;
        if first {
            state.ending = Some(ending);
        }
        wake(state);
        first
    }

    /// Remembers whom to wake for the next frame, and takes nothing.
    pub(crate) fn arm(&self, waker: &Waker) {
        self.state.lock().waker = Some(waker.clone());
    }

    /// Wakes the connection, for it to look around.
    pub(crate) fn nudge(&self) {
        wake(self.state.lock());
    }

    /// Whether it was asked to end.
    #[must_use]
    pub(crate) fn is_ending(&self) -> bool {
        self.state.lock().ending.is_some()
    }

    /// The connection is at work and will [`Self::take`] before it sleeps: what
    /// is queued meanwhile need not wake it.
    pub(crate) fn disarm(&self) {
        self.state.lock().waker = None;
    }

    /// Takes every queued frame, and remembers whom to wake for the next one.
    /// Called by the connection's task only, which gives back what the kernel
    /// did not take ([`Self::restore`]); nothing taken need not be given back.
    pub(crate) fn take(&self, waker: &Waker) -> Taken {
        let mut state = self.state.lock();
        match &mut state.waker {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
        let queue = if state.queue.is_empty() { VecDeque::new() } else { std::mem::take(&mut state.queue) };
        Taken { queue, offset: state.offset, ending: state.ending }
    }

    /// Gives back a taken queue, after the kernel took `frames` whole frames
    /// of `bytes` in all, and `offset` bytes of the first one left. The memory
    /// of an empty one is let go of: most connections wait for a long time.
    pub(crate) fn restore(&self, mut queue: VecDeque<Frame>, bytes: usize, frames: usize, offset: u32) {
        let mut state = self.state.lock();
        state.offset = offset;
        state.bytes = state.bytes.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        state.frames = state.frames.saturating_sub(u32::try_from(frames).unwrap_or(u32::MAX));
        if !queue.is_empty() {
            queue.append(&mut state.queue);
            state.queue = queue;
        }
    }

    /// From now on a fan-out may write by itself ([`super::Run::offer_to`]).
    pub(crate) fn attach(&self, socket: Arc<TcpStream>) {
        self.state.lock().direct = Some(Direct::new(socket));
    }

    /// From now on only the connection writes.
    pub(crate) fn detach(&self) {
        self.state.lock().direct = None;
    }

    /// No more frames: the connection is gone. Returns what was left, and how
    /// many bytes of the first frame left.
    pub(crate) fn close(&self) -> (VecDeque<Frame>, u32) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waker = None;
        state.direct = None;
        (std::mem::take(&mut state.queue), state.offset)
    }

    /// Whether the connection is gone.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Asks for what a fan-out looks at, without waiting for it.
    pub(super) fn approach(&self) {
        prefetch(&self.state);
    }

    /// Frames and bytes not yet in the kernel.
    #[must_use]
    pub(crate) fn backlog(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.frames, state.bytes)
    }
}

/// Ends the guard, then wakes the connection.
pub(super) fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 100, frames: 4 };

    fn answer(size: usize) -> Frame {
        Frame::control(vec![0; size].into(), FrameKind::Other)
    }

    fn typing(size: usize) -> Frame {
        Frame::ephemeral(vec![0; size].into())
    }

    #[test]
    fn answers_are_bounded_in_bytes() {
        let outbox = Outbox::default();
        for _ in 0..6 {
            assert!(outbox.push(answer(10), LIMITS));
        }
        assert!(!outbox.push(answer(60), LIMITS), "too many bytes");
        assert_eq!(outbox.take(Waker::noop()).ending, Some(Ending::of(CloseReason::SlowConsumer)));
        assert!(Outbox::default().push(answer(1_000), LIMITS), "one always fits");
    }

    #[test]
    fn ephemeral_frames_go_first_and_end_nothing() {
        let outbox = Outbox::default();
        assert!(outbox.push(answer(60), LIMITS));
        assert!(!outbox.push(typing(1), LIMITS));
        assert!(outbox.push(answer(10), LIMITS));
        assert_eq!(outbox.take(Waker::noop()).ending, None);
        let outbox = Outbox::default();
        assert!(outbox.push(typing(1), LIMITS) && outbox.push(typing(1), LIMITS));
        assert!(!outbox.push(typing(1), LIMITS), "half of the frames, too");
    }

    #[test]
    fn bytes_count_until_the_kernel_has_them() {
        let outbox = Outbox::default();
        assert!(outbox.push(answer(80), LIMITS));
        let mut out = outbox.take(Waker::noop()).queue;
        assert_eq!(outbox.backlog(), (1, 80));
        assert!(!outbox.push(typing(30), LIMITS));
        out.clear();
        outbox.restore(out, 80, 1, 0);
        assert!(outbox.push(typing(30), LIMITS));
    }

    #[test]
    fn what_the_kernel_did_not_take_stays_in_front() {
        let outbox = Outbox::default();
        assert!(outbox.push(answer(1), LIMITS));
        let out = outbox.take(Waker::noop()).queue;
        assert!(outbox.push(answer(2), LIMITS));
        outbox.restore(out, 0, 0, 0);
        let sizes: Vec<_> = outbox.take(Waker::noop()).queue.iter().map(|f| f.bytes.len()).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn the_first_ending_wins_and_closed_takes_nothing() {
        let outbox = Outbox::default();
        assert!(outbox.end(Ending::of(CloseReason::Replaced)));
        assert!(!outbox.end(Ending::of(CloseReason::Shutdown)));
        assert!(!outbox.push(answer(1), LIMITS));
        let ending = outbox.take(Waker::noop()).ending;
        assert_eq!(ending.map(|e| e.reason), Some(CloseReason::Replaced));
    }
}
