//! Hot restarts and drains.

use serde_json::json;

use crate::common::raw::Raw;
use crate::common::{Client, Gateway, Options};
use crate::scrape::{Metrics, Series};

const MOVED: Series = "tidegate_handover_connections_total{state=all}";
const MID_FRAME: Series = "tidegate_handover_connections_total{state=mid_frame}";
const UNSENT: Series = "tidegate_handover_connections_total{state=with_unsent}";
pub(crate) const HANDOVERS: &[Series] = &[
    "tidegate_handovers_total{result=done}",
    "tidegate_handovers_total{result=failed}",
    "tidegate_handover_pause_seconds_count",
    MOVED,
    MID_FRAME,
    UNSENT,
];
pub(crate) const DRAINED: &[Series] = &["tidegate_connections_drained_total"];

#[tokio::test]
async fn a_hot_restart_is_counted_and_counters_go_on() {
    let mut gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut half = Raw::upgraded(&gateway, 1).await;
    half.write(&[0x82]).await;
    let _slow = Client::open_narrow(&gateway, "/ws?user=2&device=phone").await;
    for n in 0..10 {
        let body = json!({"target": {"users": [2]}, "topic": "t", "payload": format!("{n:0>30000}")});
        gateway.http().post("/v1/push", &body).await.success();
    }
    let refused = gateway.http().post("/v1/upgrade", &json!({"binary": "/bin/false"})).await;
    assert_eq!(refused.status, 409);
    let report = gateway.upgrade().await;
    assert_eq!(
        (&report["moved"], &report["midFrame"], &report["withUnsent"]),
        (&json!(2), &json!(1), &json!(1))
    );
    metrics.moved(HANDOVERS).await;
    assert_eq!(metrics.grown(MOVED).await, 2.0);
    assert_eq!(metrics.grown("tidegate_handshakes_total{result=ok}").await, 2.0, "of the process before");
}

#[tokio::test]
async fn who_is_asked_to_leave_is_counted() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    // It does not leave at once, so that there is time to look.
    let _stubborn = Raw::upgraded(&gateway, 1).await;
    gateway.http().post("/v1/drain", &json!({})).await.success();
    metrics.moved(DRAINED).await;
}
