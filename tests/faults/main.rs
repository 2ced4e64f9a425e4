//! Nothing is lost: real gateways and a real Redis under traffic, faults in
//! the middle of it, and a checker that has seen what every client saw.
//!
//! Each run checks at least 10,000 acknowledged messages and brings about at
//! least three faults with at least 100 sends in flight, or it is void and
//! fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fleet.rs"]
mod fleet;

mod bus;
mod embedded;
mod gateways;
mod redis;
mod replicas;
mod scripts;
