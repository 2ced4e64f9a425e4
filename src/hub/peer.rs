//! What the rest of the gateway holds of one connection.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::copies::Offered;
use super::outbox::{Frame, Outbox, OutboxLimits};
use crate::message::Mark;
use crate::telemetry::HintCause;
use crate::types::{ConnId, ConversationId, DeviceId, UserId, monotonic_ms};

/// Who is at the other end; fixed for the life of the connection.
#[derive(Debug, Clone)]
pub(crate) struct PeerIdentity {
    /// The connection.
    pub conn: ConnId,
    /// Its user.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// When the credentials run out, unix seconds, or [`Self::NEVER`].
    pub expires_at: i64,
}

impl PeerIdentity {
    /// Of credentials that do not run out.
    pub(crate) const NEVER: i64 = i64::MAX;
}

/// Identity, signs of life and the outbox. Shared; everything in it is either
/// fixed, atomic, or behind the outbox's own short lock. In this order: it puts
/// what a fan-out looks at into one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Peer {
    /// Who it is.
    pub identity: PeerIdentity,
    limits: OutboxLimits,
    /// Frames on their way to it.
    pub outbox: Outbox,
    /// The store's time of the first bind; 0 = not bound yet.
    bound: AtomicU64,
    /// Monotonic ms of its beginning.
    pub(super) since: u64,
    /// Monotonic ms of the last inbound frame.
    pub(super) last_seen: AtomicU64,
    /// Monotonic ms of the last route refresh.
    pub(super) refreshed: AtomicU64,
    /// Monotonic ms since when written bytes make no progress; 0 = they do.
    pub(super) stalled: AtomicU64,
    /// Monotonic ms since when an inbound message is unfinished; 0 = none is.
    pub(super) partial: AtomicU64,
    /// Monotonic ms until when sends are turned away, because one was, and
    /// those behind it may be on their way already.
    pub(super) shedding: AtomicU64,
    /// Sends handed to the pipeline and not yet answered.
    in_flight: AtomicU32,
    /// Reads handed to the pipeline and not yet answered.
    pulls: AtomicU16,
}

impl Peer {
    /// A connection seen just now.
    #[must_use]
    pub(crate) fn new(identity: PeerIdentity, bound: u64, limits: OutboxLimits) -> Self {
        let now = monotonic_ms();
        Self {
            identity,
            outbox: Outbox::opening(),
            limits,
            bound: AtomicU64::new(bound),
            since: now,
            last_seen: AtomicU64::new(now),
            refreshed: AtomicU64::new(now),
            stalled: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            shedding: AtomicU64::new(0),
            pulls: AtomicU16::new(0),
        }
    }

    /// Queues a frame for this connection; returns whether there was room.
    pub(crate) fn answer(&self, frame: Frame) -> bool {
        self.outbox.push(frame, self.limits)
    }

    /// Queues the ack of a message of its own; returns whether that is to be
    /// held against the log at once.
    pub(crate) fn acknowledge(&self, ack: Frame, mark: &Mark) -> bool {
        self.outbox.acknowledge(ack, mark, self.limits)
    }

    /// Offers a copy of a stored message; `own` = it was sent over this
    /// connection.
    pub(crate) fn offer(&self, frame: &Frame, own: bool) -> Offered {
        self.outbox.offer(frame, own, self.limits)
    }

    /// Tells the client to pull a conversation, unless it was told.
    pub(crate) fn hint(
        &self,
        conversation: &ConversationId,
        epoch: u64,
        top: i64,
        delay_ms: u32,
        cause: HintCause,
    ) {
        self.outbox.hint(conversation, epoch, top, delay_ms, cause, self.limits);
    }

    /// Bounds of the outbox.
    #[must_use]
    pub(crate) const fn limits(&self) -> OutboxLimits {
        self.limits
    }

    /// The store's time of the first bind; 0 = not bound yet.
    #[must_use]
    pub(crate) fn bound(&self) -> u64 {
        self.bound.load(Ordering::Acquire)
    }

    /// For how long it has been connected, µs, at least 1.
    #[must_use]
    pub(crate) fn age_us(&self) -> u64 {
        monotonic_ms().saturating_sub(self.since).saturating_mul(1_000).max(1)
    }

    /// Remembers the first bind.
    pub(crate) fn set_bound(&self, bound: u64) {
        self.bound.store(bound, Ordering::Release);
    }

    /// Monotonic ms of the last inbound frame.
    #[must_use]
    pub(crate) fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    /// A frame came in.
    pub(crate) fn seen(&self, now_ms: u64) {
        self.last_seen.store(now_ms, Ordering::Relaxed);
    }

    /// Monotonic ms of the last route refresh.
    #[must_use]
    pub(crate) fn refreshed(&self) -> u64 {
        self.refreshed.load(Ordering::Relaxed)
    }

    /// The route was refreshed, or is about to be.
    pub(crate) fn set_refreshed(&self, now_ms: u64) {
        self.refreshed.store(now_ms, Ordering::Relaxed);
    }

    /// Since when nothing could be written, monotonic ms.
    #[must_use]
    pub(crate) fn stalled_since(&self) -> Option<u64> {
        Some(self.stalled.load(Ordering::Relaxed)).filter(|&ms| ms > 0)
    }

    /// Nothing could be written: starts the clock if it is not running.
    pub(crate) fn stall(&self, now_ms: u64) {
        let _ = self.stalled.compare_exchange(0, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Something was written, but not all: the clock starts again.
    pub(crate) fn restall(&self, now_ms: u64) {
        self.stalled.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// Everything was written.
    pub(crate) fn unstall(&self) {
        self.stalled.store(0, Ordering::Relaxed);
    }

    /// Since when an inbound message is unfinished, monotonic ms.
    #[must_use]
    pub(crate) fn partial_since(&self) -> Option<u64> {
        Some(self.partial.load(Ordering::Relaxed)).filter(|&ms| ms > 0)
    }

    /// Whether an inbound message is unfinished now; `fresh` = it is another
    /// one than before.
    pub(crate) fn set_partial(&self, partial: bool, fresh: bool, now_ms: u64) {
        if !partial {
            self.partial.store(0, Ordering::Relaxed);
        } else if fresh || self.partial.load(Ordering::Relaxed) == 0 {
            self.partial.store(now_ms.max(1), Ordering::Relaxed);
        }
    }

    /// Sends not yet answered.
    #[must_use]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// A send goes to the pipeline.
    pub(crate) fn send_started(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a send must be turned away because one before it was, and this
    /// one may have been on its way already.
    #[must_use]
    pub(crate) fn is_shedding(&self, now_ms: u64) -> bool {
        now_ms < self.shedding.load(Ordering::Relaxed)
    }

    /// A send was turned away, to come again after `until`, monotonic ms.
    pub(crate) fn shed(&self, until: u64) {
        self.shedding.fetch_max(until, Ordering::Relaxed);
    }

    /// A read goes to the pipeline; returns how many there are now.
    pub(crate) fn pull_started(&self) -> u16 {
        self.pulls.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether nothing it asked for is still to be answered.
    #[must_use]
    pub(crate) fn is_answered(&self) -> bool {
        self.in_flight() == 0 && self.pulls.load(Ordering::Acquire) == 0
    }

    /// A read was answered.
    pub(crate) fn pull_answered(&self) {
        self.pulls.fetch_sub(1, Ordering::AcqRel);
    }

    /// A send was answered.
    pub(crate) fn send_answered(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::*;

    fn bytes_of<T>(part: &T) -> Range<usize> {
        let start = std::ptr::from_ref(part).addr();
        start..start + size_of::<T>()
    }

    /// Where the allocator puts 256 bytes at a multiple of 64, as the process's
    /// does.
    #[test]
    fn what_a_fan_out_looks_at_is_one_cache_line() {
        let device = DeviceId::new("d").unwrap();
        let identity = PeerIdentity {
            conn: ConnId(1),
            user: UserId::new(1).unwrap(),
            device,
            expires_at: PeerIdentity::NEVER,
        };
        let peer = Arc::new(Peer::new(identity, 1, OutboxLimits { bytes: 1, frames: 1 }));
        // In front of it the `Arc` counts twice.
        let start = Arc::as_ptr(&peer).addr() - 16;
        assert_eq!(size_of::<Peer>() + 16, 256);
        let outbox = bytes_of(&peer.outbox);
        let places = bytes_of(&peer.outbox.state.lock().places);
        // Of the places all but the last word.
        assert_eq!([outbox.start, places.end - 9].map(|at| (at - start) / 64), [1, 1]);
        assert_eq!((outbox.start - start) % 64, 0);
    }
}
