//! The two clocks: wall time for what is told to others, monotonic time for
//! every deadline.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds since the first call in this process; never goes back.
#[must_use]
pub(crate) fn monotonic_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Unix time in milliseconds.
#[must_use]
pub(crate) fn unix_ms() -> i64 {
    unix_micros() / 1000
}

/// Unix time in microseconds.
#[must_use]
pub(crate) fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
