//! Counts that choose among counters.

use metrics::Counter;

use super::labels::{FrameKind, HintCause, Refusal, ResyncCause};
use super::metrics::Metrics;
use crate::types::CloseReason;

impl Metrics {
    /// Counts an ending.
    pub(crate) fn count_closed(&self, reason: CloseReason) {
        if let Some((_, counter)) = self.closed.iter().find(|(row, _)| *row == reason) {
            counter.increment(1);
        }
    }

    /// Counts frames of one kind that came in.
    pub(crate) fn frames_in_many(&self, kind: FrameKind, n: usize) {
        count(&self.frames_in, kind, u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// Counts a frame that came in.
    pub(crate) fn count_in(&self, kind: FrameKind) {
        count(&self.frames_in, kind, 1);
    }

    /// Counts frames handed to a socket's queue.
    pub(crate) fn count_out(&self, kind: FrameKind, n: u64) {
        count(&self.frames_out, kind, n);
    }

    /// Counts a client told to pull.
    pub(crate) fn count_hint(&self, cause: HintCause) {
        match cause {
            HintCause::SlowReader => &self.hint_slow_reader,
            HintCause::Hot => &self.hint_hot,
            HintCause::Replay => &self.hint_replay,
            HintCause::Gap => &self.hint_gap,
        }
        .increment(1);
    }

    /// Counts a client told that its history is another one.
    pub(crate) fn count_resync(&self, cause: ResyncCause) {
        match cause {
            ResyncCause::OtherMessage => &self.resync_other_message,
            ResyncCause::Beyond => &self.resync_beyond,
            ResyncCause::Trimmed => &self.resync_trimmed,
        }
        .increment(1);
    }

    /// Counts a refused message.
    pub(crate) fn count_refused(&self, why: Refusal) {
        match why {
            Refusal::Invalid => &self.refused_invalid,
            Refusal::Forbidden => &self.refused_forbidden,
            Refusal::RetryLater => &self.refused_retry_later,
            Refusal::QueueFull => &self.refused_queue_full,
            Refusal::Internal => &self.refused_internal,
        }
        .increment(1);
    }
}

fn count(counters: &[Counter; 8], kind: FrameKind, n: u64) {
    #[allow(clippy::as_conversions)] // A fieldless enum of ours, as an index.
    if let Some(counter) = counters.get(kind as usize) {
        counter.increment(n);
    }
}
