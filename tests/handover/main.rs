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
mod crossing;
mod crowd;
mod failing;
mod moving;
mod talker;
