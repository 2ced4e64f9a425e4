//! Messages past their time.

use serde_json::json;

use crate::common::{Client, Gateway, Options, eventually, secs};
use crate::scrape::{Metrics, Series};

const MESSAGES: Series = "tidegate_retention_messages_total";
pub(crate) const RETENTION: &[Series] =
    &[MESSAGES, "tidegate_retention_conversations_total", "tidegate_retention_rounds_total"];

const CHAT: &str = "p2p:42:43";

#[tokio::test]
async fn what_is_removed_is_counted() {
    let gateway = Gateway::start(Options::new().config("retention.p2p_count = 2\n")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    for n in 0..5 {
        phone.store_text(CHAT, &format!("m-{n}"), "x").await;
    }
    // A round that began before the last of them leaves some to the next.
    metrics.moved_within(RETENTION, secs(90)).await;
    eventually("three are removed", secs(90), || async {
        (metrics.grown(MESSAGES).await == 3.0).then_some(())
    })
    .await;
    let path = format!("/v1/history?conversationId={CHAT}");
    let left = gateway.http().get(&path).await.success().json();
    assert_eq!((&left["firstAvailableSeq"], &left["topSeq"]), (&json!(4), &json!(5)));
    // What was removed is known all the same.
    assert!(phone.store_text(CHAT, "m-0", "x").await.duplicate);
}
