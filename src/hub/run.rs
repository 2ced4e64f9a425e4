//! A run of messages of one conversation, on its way to one connection after
//! another.
//!
//! Where nothing is queued before it, a run is written straight to the socket,
//! in one call and under the outbox's lock: waking a task for it costs as much
//! again as the kernel takes. What the kernel does not take is queued, and the
//! task is woken for that. So all bytes are in the outbox or in the kernel
//! still, and in order.

use std::io::IoSlice;
use std::sync::Arc;

use super::copies::Offered;
use super::gap::Held;
use super::outbox::{Outbox, OutboxLimits, State, wake};
use super::peer::Peer;
use crate::telemetry::{FrameKind, metrics};

/// Most messages of one run.
pub(crate) const MAX_RUN: usize = 32;

/// What became of a run, at all the connections it was offered to.
#[derive(Debug, Default)]
pub(crate) struct Fanned {
    /// Copies on their way.
    pub taken: u64,
    /// Messages, by index, that came too early for somebody.
    pub early: u32,
    /// Of these, those that are of another history than somebody's.
    pub other_history: u32,
    gone: u64,
    queued: u32,
    written: u64,
    bytes: usize,
    batched: u64,
}

impl Fanned {
    fn note(&mut self, index: usize, offered: Offered) {
        let bit = 1_u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
        match offered {
            Offered::Hole => self.early |= bit,
            Offered::OtherHistory => {
                self.early |= bit;
                self.other_history |= bit;
            }
            Offered::Taken | Offered::Gone | Offered::Stale | Offered::Pulling => {}
        }
    }
}

impl Drop for Fanned {
    /// Told once for all connections: a counter is shared by all threads.
    fn drop(&mut self) {
        let m = metrics();
        m.copies_enqueued.increment(self.taken + self.gone);
        if self.gone > 0 {
            m.copies_dropped_closed.increment(self.gone);
        }
        if self.queued > 0 {
            m.copies_queued.increment(self.queued);
        }
        if self.written > 0 {
            m.copies_written.increment(self.written);
            m.count_out(FrameKind::Push, self.written);
            m.bytes_out.increment(u64::try_from(self.bytes).unwrap_or(u64::MAX));
        }
        if self.batched > 0 {
            m.batched_frames.increment(self.batched);
        }
    }
}

impl Peer {
    /// Offers a run of at most [`MAX_RUN`] messages to a user who sees what has
    /// a larger seq than `since`.
    pub(crate) fn offer_run(self: &Arc<Self>, run: &[Held], since: i64, fanned: &mut Fanned) {
        let own = |held: &Held| held.except.as_ref().is_some_and(|other| Arc::ptr_eq(other, self));
        self.outbox.offer_run(run, since, own, self.limits(), fanned);
    }
}

impl Outbox {
    fn offer_run(
        &self,
        run: &[Held],
        since: i64,
        own: impl Fn(&Held) -> bool,
        limits: OutboxLimits,
        fanned: &mut Fanned,
    ) {
        let visible = |held: &Held| held.frame.mark.as_ref().is_some_and(|mark| mark.seq > since);
        let mut state = self.state.lock();
        if state.is_over() {
            let gone = run.iter().filter(|held| visible(held)).count();
            fanned.gone += u64::try_from(gone).unwrap_or(u64::MAX);
            return;
        }
        let mut fresh = [None; MAX_RUN];
        let mut count = 0;
        for (index, held) in run.iter().enumerate().filter(|(_, held)| visible(held)) {
            match state.judge(&held.frame, own(held)) {
                Some(offered) => fanned.note(index, offered),
                None => {
                    if let Some(slot) = fresh.get_mut(count) {
                        *slot = Some(held);
                        count += 1;
                    }
                }
            }
        }
        if count == 0 {
            return;
        }
        let fresh = || fresh.iter().take(count).flatten();
        fanned.taken += u64::try_from(count).unwrap_or(u64::MAX);
        let mut slices = [IoSlice::new(&[]); MAX_RUN];
        for (slice, held) in slices.iter_mut().zip(fresh()) {
            *slice = IoSlice::new(&held.frame.bytes);
        }
        let mut left = state.write(slices.get(..count).unwrap_or_default());
        fanned.bytes += left;
        let mut written = 0;
        for held in fresh() {
            let size = held.frame.bytes.len();
            if left >= size {
                left -= size;
                written += 1;
            } else if left > 0 {
                // What has left in part leaves whole.
                state.enqueue(held.frame.clone());
                state.offset = u32::try_from(std::mem::take(&mut left)).unwrap_or(u32::MAX);
                fanned.queued += 1;
            } else {
                state.queue_copy(&held.frame, limits);
            }
        }
        fanned.written += written;
        fanned.batched += if written > 1 { written } else { 0 };
        if written < u64::try_from(count).unwrap_or(u64::MAX) {
            wake(state);
        }
    }
}

impl State {
    /// Writes by itself, if nothing is queued; returns how many bytes left. An
    /// error is found by the connection's task.
    fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        let socket = self.socket.as_ref().filter(|_| self.frames == 0 && !self.opening);
        let Some(socket) = socket else { return 0 };
        match slices {
            [one] => socket.try_write(one),
            many => socket.try_write_vectored(many),
        }
        .unwrap_or(0)
    }
}
