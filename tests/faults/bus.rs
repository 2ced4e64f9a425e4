//! Subscriptions that are cut while messages pass.

use std::time::Duration;

use tidegate_loadtest::history::Rules;

use crate::common::{Redis, secs};
use crate::fleet::{IN_FLIGHT, Run, strict};

/// With the store in place the whole time, a message must not take longer.
const LIVE: Duration = secs(10);

#[tokio::test]
async fn killed_subscriptions_lose_nothing() {
    let redis = Redis::start().await;
    let mut run = Run::on(&redis, 2).await;
    run.flow(1_000).await;
    for _ in 0..20 {
        run.fleet.strike("kill subscriptions", IN_FLIGHT, || ()).await;
        let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        run.flow(300).await;
    }
    run.flow_until_enough().await;
    // Nothing comes behind what is lost now: nobody sees a hole.
    run.fleet.strike("kill subscriptions, last", IN_FLIGHT, || ()).await;
    let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    run.judge(&Rules { live_within: Some(LIVE), ..strict() }).await;
}

#[tokio::test]
async fn an_overflowing_subscription_loses_nothing() {
    let redis = Redis::start().await;
    let mut run = Run::on(&redis, 2).await;
    run.flow(1_000).await;
    let limit = "pubsub 65536 65536 1";
    let _: String = redis.query(&["CONFIG", "SET", "client-output-buffer-limit", limit]).await;
    let channels: Vec<String> = redis.query(&["PUBSUB", "CHANNELS"]).await;
    assert_eq!(channels.len(), 2, "{channels:?}");
    // Nobody's message, and more than the buffer holds.
    let flood = "x".repeat(1 << 20);
    for round in 0..8 {
        run.fleet.strike("overflow a subscription", IN_FLIGHT, || ()).await;
        let _: i64 = redis.query(&["PUBLISH", &channels[round % 2], &flood]).await;
        run.flow(800).await;
    }
    run.flow_until_enough().await;
    // Nothing comes behind what is lost now: nobody sees a hole.
    for channel in &channels {
        run.fleet.strike("overflow a subscription, last", IN_FLIGHT, || ()).await;
        let _: i64 = redis.query(&["PUBLISH", channel, &flood]).await;
    }
    run.judge(&Rules { live_within: Some(LIVE), ..strict() }).await;
}
