//! Gateways that are killed.

use crate::common::{Gateway, Redis};
use crate::fleet::{Run, strict};

#[tokio::test]
async fn gateways_killed_one_after_the_other_lose_nothing() {
    let redis = Redis::start().await;
    let mut run = Run::on(&redis, 4).await;
    run.flow(1_000).await;
    let mut returning = Vec::new();
    for _ in 0..3 {
        let gateway = run.kill_gateway().await;
        returning.push(tokio::spawn(gateway.restart()));
        run.flow(2_000).await;
    }
    run.flow_until_enough().await;
    // The first one back, under its old name and in a new epoch, serves again.
    let first: Gateway = returning.remove(0).await.unwrap();
    run.add(first);
    run.flow(500).await;
    run.judge(&strict()).await;
    for gateway in returning {
        gateway.abort();
    }
}
