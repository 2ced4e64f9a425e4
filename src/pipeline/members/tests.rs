//! Who is in a room, and what those hear who are not any more.

use super::super::testbed::{Testbed, hinted, pushed, received, team, user};
use super::*;
use crate::hub::Start;
use crate::message::Place;
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

#[tokio::test(start_paused = true)]
async fn what_comes_while_somebody_is_taken_in_is_made_up_for() {
    fastrand::seed(1);
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2]);
    gateway.say(&bed, 1).await;
    let two = bed.arrive(&gateway, 2).await;
    bed.weather.lock().delay_ms = 1_000;
    let joining = tokio::spawn({
        let ports = Arc::clone(ports);
        async move { ports.join_rooms(user(2), vec![team()]).await }
    });
    while bed.model.roster(&team(), &[]).unwrap().audience.gateways.is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(!joining.is_finished());
    // The tops are read, and not here yet.
    gateway.say(&bed, 2).await;
    let joined = joining.await.unwrap().unwrap();
    let behind = |(group, joined): &(ConversationId, Joined)| {
        Place::new(group, joined.top.epoch, joined.top.seq, message_id(&joined.top.server_msg_id))
    };
    let places: Vec<Place> = joined.iter().map(behind).collect();
    assert_eq!(places.iter().map(|place| place.seq).collect::<Vec<_>>(), [1]);
    ports.open(&two, Vec::new(), Start { places, ..Start::default() });
    assert_eq!(hinted(&two), [2]);
}

#[tokio::test]
async fn interest_that_was_lost_is_registered_again() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2]);
    let two = bed.connect(&gateway, 2).await;
    ports.look_up_members(&team(), &[user(2)]).await;
    bed.model.leave(&ports.own, &[team()]);
    // Nobody tells this gateway of it.
    bed.append(&team(), 1).await;
    ports.check_members(&team()).await.unwrap();
    let audience = bed.model.roster(&team(), &[]).unwrap().audience;
    assert_eq!(audience.gateways, std::slice::from_ref(&ports.own));
    assert!(ports.hub.gaps.any(), "what came meanwhile is read");
    ports.leave_rooms(&two);
    ports.hub.remove(&two);
    ports.leave_rooms(&two);
    bed.model.leave(&ports.own, &[team()]);
    ports.check_members(&team()).await.unwrap();
    assert!(bed.model.roster(&team(), &[]).unwrap().audience.gateways.is_empty(), "nobody is here");
}

#[tokio::test]
async fn lost_interest_shows_in_what_is_sent_here() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2]);
    let two = bed.connect(&gateway, 2).await;
    ports.look_up_members(&team(), &[user(2)]).await;
    gateway.say(&bed, 1).await;
    assert!(!ports.hub.gaps.any());
    bed.model.leave(&ports.own, &[team()]);
    gateway.say(&bed, 2).await;
    assert_eq!(pushed(&two), [1, 2]);
    assert!(ports.hub.gaps.any(), "it is to be looked at");
    ports.reload_for(&team()).await.unwrap();
    let audience = bed.model.roster(&team(), &[]).unwrap().audience;
    assert_eq!(audience.gateways, std::slice::from_ref(&ports.own));
}
