//! Which of the connections here a stored message reaches, and how.

use super::super::Tuning;
use super::super::testbed::{Testbed, hinted, team, user};
use crate::config::Groups;

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
    quick.outbox.restart(&team(), push.epoch, push.seq, 1);
    gateway.deliver(&bed, &push).await;
    assert_eq!((hinted(&quick), hinted(&slow)), (vec![], vec![1]));
}
