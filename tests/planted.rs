//! The checker finds bugs that are really there: four are planted in a build
//! with the feature `planted-bugs`, one at a time, under the traffic of
//! tests/faults.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod common;
#[path = "common/fleet.rs"]
mod fleet;

use common::{Options, Redis, secs};
use fleet::{IN_FLIGHT, Run};
use tidegate_loadtest::history::{Rules, Verdict};
use tokio::time::sleep;

/// Less than elsewhere: what is wrong shows early.
fn rules() -> Rules {
    Rules { least_acked: 1_000, least_injections: 1, least_in_flight: IN_FLIGHT, ..Rules::default() }
}

fn gateway(redis: &Redis, name: &str, bug: Option<&str>) -> Options {
    let options = Options::cluster(redis, name);
    match bug {
        Some(bug) => options.env("TIDEGATE_PLANTED_BUG", bug),
        None => options,
    }
}

/// One of `labels` was found, and the run means something.
fn assert_caught(verdict: &Verdict, labels: &[&str]) {
    assert!(verdict.void.is_empty(), "{verdict}");
    assert!(labels.iter().any(|label| verdict.count(label) > 0), "none of {labels:?} in: {verdict}");
}

/// A Redis that keeps everything is away for longer than sends are held.
async fn outage(bug: Option<&str>) -> Verdict {
    let mut redis = Redis::start_durable("always").await;
    let mut run = Run::with(vec![gateway(&redis, "gw-0", bug)]).await;
    run.flow(1_000).await;
    run.fleet.strike("redis is away for 3 s", IN_FLIGHT, || redis.stop()).await;
    sleep(secs(3)).await;
    redis.start_again().await;
    run.flow(1_000).await;
    run.verdict(&rules()).await
}

/// Every client changes its gateway while both gateways live.
async fn change_of_gateways(bug: Option<&str>) -> Verdict {
    let redis = Redis::start().await;
    let mut run = Run::with(vec![gateway(&redis, "gw-0", bug), gateway(&redis, "gw-1", bug)]).await;
    run.flow(1_000).await;
    run.fleet.strike("all change gateways", IN_FLIGHT, || ()).await;
    run.fleet.shake();
    // What the old gateways have left to say is said while this passes.
    run.flow(3_000).await;
    run.verdict(&Rules { live_within: Some(secs(10)), ..rules() }).await
}

/// A power cut takes the end of what was not fsynced.
async fn power_cut(bug: Option<&str>) -> Verdict {
    let mut redis = Redis::start_durable("everysec").await;
    let mut run = Run::with(vec![gateway(&redis, "gw-0", bug)]).await;
    run.flow(1_000).await;
    run.fleet.strike("power cut of redis", IN_FLIGHT, || redis.stop()).await;
    redis.cut_log(128 * 1024);
    redis.start_again().await;
    run.flow(1_000).await;
    run.verdict(&Rules { may_lose: true, ..rules() }).await
}

/// A replica that lags takes over.
async fn fork(bug: Option<&str>) -> Verdict {
    let mut master = Redis::start().await;
    let mut run = Run::with(vec![gateway(&master, "gw-0", bug), gateway(&master, "gw-1", bug)]).await;
    let mut replica = master.replica().await;
    run.flow(1_000).await;
    let _: String = replica.query(&["REPLICAOF", "NO", "ONE"]).await;
    run.flow(500).await;
    run.fleet.strike("promote a replica that lags", IN_FLIGHT, || master.stop()).await;
    replica.take_over(&master).await;
    // Whoever comes back has a position to be proved.
    run.fleet.shake();
    run.flow(1_000).await;
    run.verdict(&Rules { may_lose: true, ..rules() }).await
}

#[tokio::test]
async fn publish_before_append_is_caught() {
    let verdict = outage(Some("publish_before_append")).await;
    assert_caught(&verdict, &["never stored", "silent loss"]);
}

#[tokio::test]
async fn plain_unbind_is_caught() {
    let verdict = change_of_gateways(Some("plain_unbind")).await;
    assert_caught(&verdict, &["late", "missing"]);
}

#[tokio::test]
async fn ack_before_durable_is_caught() {
    assert_caught(&power_cut(Some("ack_before_durable")).await, &["lost"]);
}

#[tokio::test]
async fn resume_without_epoch_is_caught() {
    assert_caught(&fork(Some("resume_without_epoch")).await, &["silent loss"]);
}

#[tokio::test]
async fn without_a_bug_the_same_runs_are_good() {
    for verdict in
        [outage(None).await, change_of_gateways(None).await, power_cut(None).await, fork(None).await]
    {
        assert!(verdict.is_kept(), "{verdict}");
    }
}
