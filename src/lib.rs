//! Tidegate.
pub mod wire;
pub mod types;
pub mod timer;
pub mod telemetry;
pub mod hub;
