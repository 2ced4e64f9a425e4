//! A replica that lags is promoted: seqs are used again for other messages.

use tidegate_loadtest::history::Rules;

use crate::common::Redis;
use crate::fleet::{IN_FLIGHT, Run, strict};

#[tokio::test]
async fn a_fork_is_told_to_everybody_who_was_on_the_lost_branch() {
    let mut master = Redis::start().await;
    let mut run = Run::on(&master, 2).await;
    for _ in 0..3 {
        let mut replica = master.replica().await;
        run.flow(1_500).await;
        // From here on the replica knows nothing of what the master confirms.
        let _: String = replica.query(&["REPLICAOF", "NO", "ONE"]).await;
        run.flow(500).await;
        run.fleet.strike("promote a replica that lags", IN_FLIGHT, || master.stop()).await;
        replica.take_over(&master).await;
        master = replica;
    }
    run.flow_until_enough().await;
    let verdict = run.judge(&Rules { may_lose: true, ..strict() }).await;
    assert!(verdict.announced > 0, "void: nothing was lost");
}
