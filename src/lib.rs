//! Tidegate.
pub mod wire;
pub mod types;
pub mod timer;
