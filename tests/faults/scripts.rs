//! Scripts that Redis forgets.

use tidegate_loadtest::history::Rules;

use crate::common::{Redis, secs};
use crate::fleet::{IN_FLIGHT, Run, strict};

#[tokio::test]
async fn forgotten_scripts_lose_nothing() {
    let redis = Redis::start().await;
    let mut run = Run::on(&redis, 2).await;
    run.flow(1_000).await;
    for _ in 0..20 {
        run.fleet.strike("forget scripts", IN_FLIGHT, || ()).await;
        let _: String = redis.query(&["SCRIPT", "FLUSH"]).await;
        run.flow(300).await;
    }
    run.flow_until_enough().await;
    run.judge(&Rules { live_within: Some(secs(5)), ..strict() }).await;
}
