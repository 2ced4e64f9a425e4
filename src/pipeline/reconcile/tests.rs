//! Which conversations a round looks at.

use super::super::testbed::{Testbed, user};
use super::*;
use crate::types::unix_ms;

/// Something was said between these two.
async fn said(bed: &Testbed, one: i64, other: i64) -> ConversationId {
    let conversation = ConversationId::between(user(one), user(other));
    bed.append(&conversation, 1).await;
    conversation
}

#[tokio::test]
async fn every_conversation_of_those_here_is_looked_at_once() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    for id in [1, 1, 2] {
        bed.connect(&gateway, id).await;
    }
    let mut expected = HashSet::from([said(&bed, 1, 2).await, said(&bed, 3, 2).await]);
    // More than one page of an index.
    let many = i64::try_from(INDEX_PAGE).unwrap() + 10;
    for other in 100..100 + many {
        expected.insert(said(&bed, 1, other).await);
    }
    let _nobodys_here = said(&bed, 8, 9).await;
    let start = Instant::now();
    let mut round = Round::new(ports, unix_ms());
    round.go().await;
    assert_eq!(round.looked_at, expected);
    let least = Duration::from_millis(200);
    assert!(start.elapsed() >= least, "{} in {:?}", expected.len(), start.elapsed());
    let mut later = Round::new(ports, unix_ms() + MARGIN_MS + 1_000);
    later.go().await;
    assert!(later.looked_at.is_empty(), "nothing was active since");
}
