//! Which of the connections here a stored message reaches, and how.

use super::super::Tuning;
use super::super::testbed::{Testbed, hinted, pushed, team, user};
use crate::config::Groups;
use crate::message::Place;

#[tokio::test]
async fn who_has_come_for_a_message_is_not_told_of_it() {
    let bed = Testbed::new();
    let busy = Groups { push_members: 0, ..Tuning::for_tests().groups };
    let gateway = bed.gateway_with("gw", busy);
    let ports = &gateway.ports;
    bed.make_team(&[1, 2, 3]);
    let (quick, slow) = (bed.connect(&gateway, 2).await, bed.connect(&gateway, 3).await);
    ports.look_up_members(&team(), &[user(2), user(3)]).await;
    let push = bed.append(&team(), 1).await;
    // As a pull does that comes to the end of the log.
    let before = quick.outbox.place(&team()).unwrap();
    assert!(quick.outbox.move_place(&team(), &before, &Place::new(&team(), push.epoch, push.seq, 1)));
    gateway.deliver(&bed, &push).await;
    assert_eq!((hinted(&quick), hinted(&slow)), (vec![], vec![1]));
}

#[tokio::test]
async fn what_waits_is_not_offered_to_whoever_may_be_out() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2, 3]);
    let (two, three) = (bed.connect(&gateway, 2).await, bed.connect(&gateway, 3).await);
    let stale = bed.model.join(&ports.own, &[(team(), user(2))]).pop().unwrap().unwrap();
    ports.look_up_members(&team(), &[user(3)]).await;
    bed.model.remove_member(&team(), user(2));
    ports.reload(&team()).await.unwrap();
    let first = bed.append(&team(), 1).await;
    let second = bed.append(&team(), 2).await;
    // It waits for the first one, and meanwhile somebody is taken in as he was
    // before he was removed.
    gateway.deliver(&bed, &second).await;
    two.outbox.enter(&team(), first.epoch, first.seq, 1);
    ports.hub.rooms.get(&team()).unwrap().enter(user(2), 0, stale.mver);
    assert!(!ports.release(&team()), "it has to be read who is in");
    gateway.deliver(&bed, &first).await;
    assert_eq!((pushed(&two), pushed(&three)), (vec![], vec![]));
    ports.reload(&team()).await.unwrap();
    assert!(ports.release(&team()));
    assert_eq!((pushed(&two), pushed(&three)), (vec![], vec![1, 2]));
}
