//! What a fan-out counts.

use super::Offered;
use crate::telemetry::{FrameKind, metrics};

/// What became of a run, at all the connections it was offered to.
#[derive(Debug, Default)]
pub(crate) struct Fanned {
    /// Copies on their way.
    pub taken: u64,
    /// Messages, a bit each, that came too early for somebody.
    pub(super) early: u32,
    /// Of these, those that are of another history than somebody's.
    other_history: u32,
    gone: u64,
    pub(super) queued: u32,
    pub(super) written: u64,
    bytes: usize,
    batched: u64,
}

impl Fanned {
    /// A connection has ended that would have got so many.
    pub(super) fn missed(&mut self, messages: usize) {
        self.gone += count(messages);
    }

    /// So many went to the kernel in one call, `bytes` of them and of what
    /// comes behind them.
    pub(super) fn wrote(&mut self, messages: usize, bytes: usize) {
        self.taken += count(messages);
        self.written += count(messages);
        self.batched += if messages > 1 { count(messages) } else { 0 };
        self.bytes += bytes;
    }

    /// So many wait for their connection, one of them with its head gone if it
    /// was `cut`.
    pub(super) fn left_over(&mut self, messages: usize, cut: bool) {
        self.taken += count(messages);
        self.queued += u32::from(cut);
    }

    /// What became of the message at `index` at a connection that did not take
    /// it.
    pub(super) fn note(&mut self, index: usize, offered: Offered) {
        match offered {
            Offered::Hole => self.early |= bit(index),
            Offered::OtherHistory => {
                self.early |= bit(index);
                self.other_history |= bit(index);
            }
            Offered::Taken | Offered::Gone | Offered::Stale | Offered::Pulling | Offered::Unlisted => {}
        }
    }

    /// Whether the message at `index` came too early for somebody.
    #[must_use]
    pub(crate) fn is_early(&self, index: usize) -> bool {
        self.early & bit(index) != 0
    }

    /// Whether it is of another history than somebody's.
    #[must_use]
    pub(crate) fn is_of_other_history(&self, index: usize) -> bool {
        self.other_history & bit(index) != 0
    }
}

fn count(messages: usize) -> u64 {
    u64::try_from(messages).unwrap_or(u64::MAX)
}

fn bit(index: usize) -> u32 {
    1_u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0)
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
