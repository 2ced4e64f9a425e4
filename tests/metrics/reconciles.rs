//! What may have been lost on the way here, and the look at what was.

use crate::common::payload::text;
use crate::common::{Client, Pair, SOON, eventually, secs};
use crate::scrape::{Metrics, Series};
use tidegate::proto::envelope::Payload;

const HOLE: Series = "tidegate_reconciliations_total{cause=hole}";
const NEW_SOURCE: Series = "tidegate_reconciliations_total{cause=new_source}";
const RESUBSCRIBED: Series = "tidegate_reconciliations_total{cause=resubscribed}";
const LEASE: Series = "tidegate_reconciliations_total{cause=lease}";
const LOOKED_AT: Series = "tidegate_reconciled_conversations_total";
pub(crate) const CAUSES: &[Series] = &[HOLE, NEW_SOURCE, RESUBSCRIBED, LEASE, LOOKED_AT];

const CHAT: &str = "p2p:42:43";

#[tokio::test]
async fn every_cause_is_counted_and_conversations_are_looked_at() {
    let Pair { redis, a, b } = Pair::start().await;
    let (at_a, at_b) = (Metrics::of(&a).await, Metrics::of(&b).await);
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    alice.store_text(CHAT, "m-1", "x").await;
    bob.expect_push().await;
    at_b.moved(&[NEW_SOURCE, LOOKED_AT]).await;
    assert_eq!(at_a.grown(NEW_SOURCE).await, 0.0, "nobody wrote to it");

    // A message that is lost, and nothing behind it but the repeat.
    let _: String = redis.query(&["ACL", "SETUSER", "default", "-publish"]).await;
    alice.send(Payload::Send(text(CHAT, "m-2", "y"))).await;
    alice.expect_stored("m-2").await;
    at_a.moved(&["tidegate_dropped_total{reason=bus_publish_failed}"]).await;
    let _: String = redis.query(&["ACL", "SETUSER", "default", "+publish"]).await;
    at_b.moved_within(&[HOLE], secs(6)).await;

    let looked_at = at_b.grown(LOOKED_AT).await;
    let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    at_b.moved(&[RESUBSCRIBED]).await;
    eventually("the conversation is looked at again", SOON, || async {
        (at_b.grown(LOOKED_AT).await > looked_at).then_some(())
    })
    .await;
    assert_eq!(at_b.grown(LEASE).await, 0.0);
    let _: i64 = redis.query(&["DEL", "gateway:gw-b"]).await;
    at_b.moved(&[LEASE]).await;
}
