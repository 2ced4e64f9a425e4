//! What storing a message costs without a gateway: the same script called by
//! a bare client, or the same bytes appended to a file and synced.

mod disk;
mod script;

pub(crate) use self::disk::append_and_sync;
pub(crate) use self::script::{Probe, pipelined};

use crate::latency::Latencies;

/// What a bare client reached.
#[derive(Debug, Default)]
pub(crate) struct Bare {
    /// Messages stored per second.
    pub(crate) per_second: f64,
    /// Of one round trip or commit.
    pub(crate) latencies: Latencies,
}
