//! The two clocks: wall time for what is told to others, monotonic time for
//! every deadline.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();
/// What the clock of the process that was replaced stood at.
static CARRIED_MS: AtomicU64 = AtomicU64::new(0);

/// Goes on with the clock of the process that this one replaces, which stands
/// at `now_ms`: its deadlines then mean the same here.
pub(crate) fn continue_monotonic(now_ms: u64) {
    CARRIED_MS.store(now_ms.saturating_sub(monotonic_ms()), Ordering::Relaxed);
}

/// Milliseconds since the first call in this process, or in the one that it
/// has replaced; never goes back.
#[must_use]
pub(crate) fn monotonic_ms() -> u64 {
    #[cfg(test)]
    if let Some(micros) = simulated::micros() {
        return u64::try_from(micros / 1000).unwrap_or(0);
    }
    let elapsed = START.get_or_init(Instant::now).elapsed();
    let carried = CARRIED_MS.load(Ordering::Relaxed);
    carried.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// Unix time in milliseconds.
#[must_use]
pub(crate) fn unix_ms() -> i64 {
    unix_micros() / 1000
}

/// Unix time in microseconds.
#[must_use]
pub(crate) fn unix_micros() -> i64 {
    #[cfg(test)]
    if let Some(micros) = simulated::micros() {
        return simulated::strictly(micros);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Clocks that follow the runtime's, which a test may have stopped.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use tokio::time::Instant;

    /// Where simulated time begins, unix µs: some day in 2033.
    const BEGINNING: i64 = 2_000_000_000_000_000;

    thread_local! {
        static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
        static LAST: Cell<i64> = const { Cell::new(0) };
    }

    /// From now on both clocks of this thread tell the runtime's time, from
    /// the same beginning each time.
    pub(crate) fn begin() {
        ORIGIN.set(Some(Instant::now()));
        LAST.set(0);
    }

    pub(super) fn micros() -> Option<i64> {
        let elapsed = ORIGIN.get()?.elapsed().as_micros();
        Some(BEGINNING + i64::try_from(elapsed).unwrap_or(0))
    }

    /// The µs go on while the ms stand still: what is named by its time is
    /// named once.
    pub(super) fn strictly(micros: i64) -> i64 {
        LAST.set(micros.max(LAST.get() + 1));
        LAST.get()
    }
}
