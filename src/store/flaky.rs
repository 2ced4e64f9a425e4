//! A store for tests that gives no answer when it is told to: before the work
//! or after it, which the caller cannot tell apart.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{Append, Appends, MemoryStore, StoreError};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It works.
    Works,
    /// It is not done, and there is no answer.
    Lost,
    /// It is done, and there is no answer.
    Unanswered,
}

/// Fails the next calls of `append` as told, then works.
#[derive(Debug, Default)]
pub(crate) struct FlakyStore {
    pub(crate) inner: MemoryStore,
    fates: Mutex<VecDeque<Fate>>,
    advanced: AtomicUsize,
}

impl FlakyStore {
    /// With these fates for the calls to come.
    pub(crate) fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        Self { fates: Mutex::new(fates.into_iter().collect()), ..Self::default() }
    }

    /// Positions written so far.
    pub(crate) fn advanced(&self) -> usize {
        self.advanced.load(Ordering::Acquire)
    }

    pub(super) fn count_advanced(&self, positions: usize) {
        self.advanced.fetch_add(positions, Ordering::AcqRel);
    }

    pub(super) fn append(&self, batch: &[&Append]) -> Appends {
        let lost = || batch.iter().map(|_| Err(StoreError::Unavailable)).collect();
        let fate = self.fates.lock().pop_front().unwrap_or(Fate::Works);
        if fate == Fate::Lost {
            return Appends { outcomes: lost(), ..Appends::default() };
        }
        let done = self.inner.append(batch);
        if fate == Fate::Unanswered {
            return Appends { outcomes: lost(), ..Appends::default() };
        }
        done
    }
}
