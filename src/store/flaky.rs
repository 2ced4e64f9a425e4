//! A store for tests that gives no answer when it is told to, or by chance:
//! before the work or after it, which the caller cannot tell apart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

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

/// How likely calls go wrong, drawn from the thread's `fastrand`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Nothing is answered.
    pub away: bool,
    /// An append is not done, or done and not answered: each this likely.
    pub append_fails: f64,
    /// A read is not answered.
    pub read_fails: f64,
    /// Longest way there, and longest way back, ms.
    pub delay_ms: u64,
    /// It does not know what it has stored before.
    pub forgetful: bool,
}

/// Fails the next calls of `append` as told; then works, as far as the weather
/// lets it.
#[derive(Debug, Default)]
pub(crate) struct FlakyStore {
    pub(crate) inner: Arc<MemoryStore>,
    fates: Mutex<VecDeque<Fate>>,
    weather: Arc<Mutex<Weather>>,
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

    /// One gateway's way to a store that others share.
    pub(crate) fn shared(inner: Arc<MemoryStore>, weather: Arc<Mutex<Weather>>) -> Self {
        Self { inner, weather, ..Self::default() }
    }

    pub(super) async fn append(&self, batch: &[&Append]) -> Appends {
        let lost = || batch.iter().map(|_| Err(StoreError::Unavailable)).collect();
        self.travel().await;
        let fate = self.fate();
        if fate == Fate::Lost {
            return Appends { outcomes: lost(), ..Appends::default() };
        }
        if self.weather.lock().forgetful {
            self.inner.forget_originals();
        }
        let done = self.inner.append(batch);
        self.travel().await;
        if fate == Fate::Unanswered || self.weather.lock().away {
            return Appends { outcomes: lost(), ..Appends::default() };
        }
        done
    }

    fn fate(&self) -> Fate {
        if let Some(told) = self.fates.lock().pop_front() {
            return told;
        }
        let Weather { away, append_fails, .. } = *self.weather.lock();
        match fastrand::f64() {
            _ if away => Fate::Lost,
            drawn if drawn < append_fails => Fate::Lost,
            drawn if drawn < 2.0 * append_fails => Fate::Unanswered,
            _ => Fate::Works,
        }
    }

    /// The way to a read.
    pub(super) async fn ask(&self) -> Result<(), StoreError> {
        self.travel().await;
        let Weather { away, read_fails, .. } = *self.weather.lock();
        if away || fastrand::f64() < read_fails { Err(StoreError::Unavailable) } else { Ok(()) }
    }

    /// The way back from a read.
    pub(super) async fn answer(&self) -> Result<(), StoreError> {
        self.travel().await;
        if self.weather.lock().away { Err(StoreError::Unavailable) } else { Ok(()) }
    }

    async fn travel(&self) {
        let most = self.weather.lock().delay_ms;
        if most > 0 {
            sleep(Duration::from_millis(fastrand::u64(0..=most))).await;
        }
    }
}
