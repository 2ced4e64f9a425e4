//! Who is in a room, and what those hear who are not any more.

use super::super::testbed::{Testbed, received, team, user};
use super::*;
use crate::wire::Payload;

/// The changes of the team that a connection was told of, and about whom.
fn told(peer: &Peer) -> Vec<(ConversationChange, i64)> {
    let event = |payload| match payload {
        Payload::ConversationEvent(event) => Some((event.change(), event.user_id)),
        _ => None,
    };
    received(peer).into_iter().filter_map(event).collect()
}

#[tokio::test]
async fn whoever_turns_out_to_be_out_is_told() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2]);
    let (one, two) = (bed.connect(&gateway, 1).await, bed.connect(&gateway, 2).await);
    ports.look_up_members(&team(), &[user(1), user(2)]).await;
    bed.model.remove_member(&team(), user(2));
    for heard in [vec![(ConversationChange::Removed, 2)], vec![]] {
        ports.reload(&team()).await.unwrap();
        assert_eq!((told(&one), told(&two)), (vec![], heard));
    }
    bed.model.delete(&team());
    for heard in [vec![(ConversationChange::Deleted, 0)], vec![]] {
        ports.reload(&team()).await.unwrap();
        assert_eq!((told(&one), told(&two)), (heard, vec![]));
    }
}
