//! What every test here is made of: real processes on ephemeral ports and in
//! temporary directories, and clients that never wait without a deadline.
//!
//! Nothing here knows the gateway's code: it is seen through its binary, its
//! sockets and its protocol only.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a panic is how a test says no"
)]

pub mod client;
pub mod disk;
mod expect;
pub mod gateway;
pub mod http;
pub mod pair;
pub mod payload;
pub mod raw;
pub mod redis;
pub mod token;

use std::future::Future;
use std::time::{Duration, Instant};

pub use client::Client;
pub use disk::SmallDisk;
pub use gateway::{Gateway, Options};
pub use http::Http;
pub use pair::Pair;
pub use redis::Redis;

/// Patience with anything that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(50);

/// A length of time in whole seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asks until the answer is `Some`, and returns it; panics after `deadline`.
pub async fn eventually<T, F, Fut>(what: &str, deadline: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Asks for all of `span` and panics at the first "no": for what must not
/// happen late.
pub async fn throughout<F, Fut>(what: &str, span: Duration, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(ask().await, "did not stay true for {span:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// `future`, or a panic after `deadline`.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}
