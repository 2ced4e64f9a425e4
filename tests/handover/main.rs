//! Hot restarts under load: nobody is disconnected, nothing is lost, doubled
//! or torn.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod activated;
mod build;
mod counting;
mod crossing;
mod crowd;
mod dying;
mod failing;
mod moving;
mod signals;
mod talker;

use common::Options;

/// Limits that a busy machine stays within: what is to be seen is what a hot
/// restart does, not what an overloaded disk does.
fn patient(options: Options) -> Options {
    options
        .env("TIDEGATE_LIMITS_SEND_WAIT", "30s")
        .env("TIDEGATE_LIMITS_MESSAGE", "5m")
        .env("TIDEGATE_LIMITS_HANDSHAKE", "60s")
        .env("TIDEGATE_HEARTBEAT_INTERVAL", "35s")
        .env("TIDEGATE_HANDOVER_PAUSE", "30s")
}
