//! Who counts as reached.

use super::super::testbed::{Testbed, outgoing, user};
use super::*;
use crate::telemetry::HintCause;
use crate::types::ConversationId;

#[tokio::test]
async fn who_is_here_is_online_also_where_he_gets_no_copy() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let reader = bed.connect(&gateway, 2).await;
    let conversation = ConversationId::parse("p2p:1:2").unwrap();
    let push = bed.append(&conversation, 1).await;
    // He is to come for it.
    reader.hint(&conversation, push.epoch, push.seq, 0, HintCause::Gap);
    let reached = gateway.ports.deliver(&[outgoing(&push, vec![user(2), user(3)], None)]).await;
    assert_eq!(reached, Reached { online: 1, offline: 1, delivered: 0 });
}
