//! Presence is off.

use serde_json::json;
use tidegate::proto::ErrorCode;

use super::common::{Client, Gateway, Options, Redis};
use super::*;

const OFF: &str = "[presence]\nenabled = false\n";

async fn refuses(gateway: &Gateway) {
    let http = gateway.http();
    let replies = [
        http.post("/v1/presence/heartbeat", &json!({ "userId": 1 })).await,
        http.get("/v1/presence/online-count").await,
        http.get("/v1/presence/users?ids=1").await,
        http.get("/v1/presence/dau").await,
        http.get("/v1/presence/online-history?from=0").await,
        http.post("/v1/presence/dau/2026-01-01/recalculate", &json!({})).await,
        http.post("/v1/analytics/events", &json!({ "events": [{}] })).await,
    ];
    for reply in replies {
        assert_eq!(reply.status.as_u16(), 409);
        assert_eq!(reply.json()["detail"], "presence is off: presence.enabled = false");
    }
    assert!(http.get("/v1/status").await.success().json()["onlineUsers"].is_null());
    let mut client = Client::connect(gateway, 1, "phone").await;
    client.send(request(&[2], true)).await;
    let error = client.expect_error().await;
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert_eq!(error.message, "presence is off: presence.enabled = false");
    client.close().await;
    let text = http.get("/metrics").await.success().text();
    assert!(text.contains("tidegate_presence_flush_duration_seconds_count 0"), "no round");
}

#[tokio::test]
async fn alone_nobody_is_told_of_anybody() {
    refuses(&Gateway::start(Options::new().config(OFF)).await).await;
}

#[tokio::test]
async fn nothing_of_it_is_in_redis() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").config(OFF)).await;
    refuses(&gateway).await;
    let keys: Vec<String> = redis.query(&["KEYS", "*presence*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}
