//! One gateway with its own store, killed in the middle of writing.

use crate::common::{Gateway, Options};
use crate::fleet::{Run, strict};

#[tokio::test]
async fn a_killed_gateway_has_everything_it_acknowledged() {
    let mut run = Run::with(vec![Options::new()]).await;
    for _ in 0..3 {
        run.flow(2_000).await;
        let killed: Gateway = run.kill_gateway().await;
        run.add(killed.restart().await);
    }
    run.flow_until_enough().await;
    let verdict = run.judge(&strict()).await;
    assert_eq!(verdict.resyncs, 0);
}
