//! A Redis that is killed and comes back, or does not answer.

use tidegate_loadtest::history::Rules;

use crate::common::{Redis, secs};
use crate::fleet::{IN_FLIGHT, Run, strict};

#[tokio::test]
async fn fsynced_writes_survive_a_kill_and_nobody_resyncs() {
    let mut redis = Redis::start_durable("always").await;
    let mut run = Run::on(&redis, 2).await;
    for _ in 0..3 {
        run.flow(2_000).await;
        run.fleet.strike("kill redis, appendfsync always", IN_FLIGHT, || redis.stop()).await;
        redis.start_again().await;
    }
    run.flow_until_enough().await;
    let verdict = run.judge(&strict()).await;
    assert_eq!(verdict.resyncs, 0);
}

/// A kill alone loses nothing that Redis wrote; a power cut does.
#[tokio::test]
async fn what_was_not_fsynced_is_lost_aloud() {
    let mut redis = Redis::start_durable("everysec").await;
    let mut run = Run::on(&redis, 2).await;
    for _ in 0..3 {
        run.flow(2_000).await;
        run.fleet.strike("power cut of redis, appendfsync everysec", IN_FLIGHT, || redis.stop()).await;
        redis.cut_log(128 * 1024);
        redis.start_again().await;
    }
    run.flow_until_enough().await;
    let verdict = run.judge(&Rules { may_lose: true, ..strict() }).await;
    assert!(verdict.announced > 0, "void: the power cuts lost nothing");
}

#[tokio::test]
async fn an_empty_redis_is_told_as_such() {
    let mut redis = Redis::start().await;
    let mut run = Run::of_pairs(&redis, 2).await;
    for _ in 0..3 {
        run.flow(2_000).await;
        run.fleet.strike("kill redis, nothing kept", IN_FLIGHT, || redis.stop()).await;
        redis.start_empty().await;
    }
    run.flow_until_enough().await;
    let verdict = run.judge(&Rules { may_lose: true, ..strict() }).await;
    assert!(verdict.announced > 0, "void: nothing was lost");
}

#[tokio::test]
async fn a_frozen_redis_delays_and_loses_nothing() {
    let redis = Redis::start().await;
    let mut run = Run::on(&redis, 2).await;
    for frozen in [3, 1, 1] {
        run.flow(2_000).await;
        run.fleet.strike("freeze redis", IN_FLIGHT, || redis.pause()).await;
        tokio::time::sleep(secs(frozen)).await;
        redis.resume();
    }
    run.flow_until_enough().await;
    run.judge(&strict()).await;
}
