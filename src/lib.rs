//! Tidegate.
pub mod wire;
pub mod types;
pub mod timer;
pub mod telemetry;
pub mod hub;
pub mod config;
pub mod redis;
pub mod route;
pub mod bus;
pub mod store;
pub mod message;
pub mod pipeline;

pub mod net;
pub mod ws;
pub mod session;
