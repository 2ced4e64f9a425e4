//! Two gateways on one Redis.

use super::{Gateway, Options, Redis};

/// `gw-a` and `gw-b`.
pub struct Pair {
    pub redis: Redis,
    pub a: Gateway,
    pub b: Gateway,
}

impl Pair {
    pub async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    /// With these options for both.
    pub async fn start_with(set: impl Fn(Options) -> Options) -> Self {
        let redis = Redis::start().await;
        let (a, b) = tokio::join!(
            Gateway::start(set(Options::cluster(&redis, "gw-a"))),
            Gateway::start(set(Options::cluster(&redis, "gw-b")))
        );
        Self { redis, a, b }
    }

    /// Cuts the way from gateway to gateway, or opens it.
    pub async fn may_publish(&self, may: bool) {
        let rule = if may { "+publish" } else { "-publish" };
        let _: String = self.redis.query(&["ACL", "SETUSER", "default", rule]).await;
    }
}
