//! The composition root: a [`Config`] in, a running gateway out.
//!
//! Start order: data directory and identity → listeners bound → admin served →
//! lease → channel subscription → sockets accepted. Redis being away delays
//! the start and never fails it. What changes the process's phase is here and
//! nowhere else. A process that takes over from another one
//! ([`Gateway::take_over`]) has its sockets and its identity from there.
//!
//! Called by `main` and by tests.

mod assemble;
mod backends;
mod build;
mod doors;
mod ending;
mod identity;
mod inheritance;
mod membership;
mod parting;
mod retention;
mod run;
mod signals;
mod upgrade;
mod wheel;

pub use build::Gateway;
pub use ending::Exit;

/// Why a gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The data directory cannot be used.
    #[error("data directory {dir}: {why}")]
    DataDir {
        /// Which.
        dir: String,
        /// What is wrong with it.
        why: String,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({role})")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// `websocket` or `admin`.
        role: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration named something unusable.
    #[error("{0}")]
    Setup(String),
    /// Another live gateway has this id.
    #[error(transparent)]
    Lease(#[from] crate::redis::LeaseError),
    /// Redis cannot be used as configured.
    #[error(transparent)]
    Redis(#[from] crate::redis::RedisError),
}
