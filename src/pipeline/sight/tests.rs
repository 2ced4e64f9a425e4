//! Watchers of a gateway in memory, and a team they leave.

use super::super::testbed::{Gateway, Testbed, received, team, user};
use super::super::watching::JUDGED_MS;
use super::*;
use crate::hub::Peer;
use crate::wire::Payload;

/// User 1 watches user 2, with whom it is in the team.
async fn watching(bed: &Testbed, gateway: &Gateway) -> Arc<Peer> {
    bed.make_team(&[1, 2, 3]);
    let peer = bed.connect(gateway, 1).await;
    gateway.ports.rejoin(&[user(1)]).await.unwrap();
    let (watching, conn) = (&mut gateway.ports.pulse.watching.lock(), peer.identity.conn);
    watching.admit(&peer);
    watching.watches.expect(conn, &[user(2)], 10).unwrap();
    watching.watches.begin(conn, &[user(2)]);
    watching.watches.unexpect(conn, &[user(2)]);
    peer
}

fn refused(peer: &Peer) -> Vec<Vec<i64>> {
    let refused = |payload| match payload {
        Payload::Error(error) if error.code() == ErrorCode::Forbidden => Some(error.user_ids),
        _ => None,
    };
    received(peer).into_iter().filter_map(refused).collect()
}

#[tokio::test]
async fn who_is_removed_neither_sees_nor_is_seen() {
    for removed in [1, 2] {
        let bed = Testbed::new();
        let gateway = bed.gateway("gw");
        let peer = watching(&bed, &gateway).await;
        gateway.ports.remove_member(team(), user(3)).await.unwrap();
        gateway.ports.judge_again(monotonic_ms()).await;
        assert!(refused(&peer).is_empty(), "he has nothing to do with it");
        gateway.ports.remove_member(team(), user(removed)).await.unwrap();
        gateway.ports.judge_again(monotonic_ms()).await;
        assert_eq!(refused(&peer), [[2]], "{removed} is removed");
        assert!(gateway.ports.pulse.watching.lock().watches.is_empty());
    }
}

#[tokio::test]
async fn with_the_group_the_watching_ends() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let peer = watching(&bed, &gateway).await;
    gateway.ports.delete_group(team()).await.unwrap();
    gateway.ports.judge_again(monotonic_ms()).await;
    assert_eq!(refused(&peer), [[2]]);
}

#[tokio::test]
async fn what_nobody_told_is_found_in_time() {
    let bed = Testbed::new();
    let (gateway, elsewhere) = (bed.gateway("gw"), bed.gateway("elsewhere"));
    let peer = watching(&bed, &gateway).await;
    elsewhere.ports.store.remove_member(&team(), user(2)).await.unwrap();
    let now_ms = monotonic_ms();
    gateway.ports.judge_again(now_ms).await;
    assert!(refused(&peer).is_empty());
    gateway.ports.judge_again(now_ms + JUDGED_MS).await;
    assert_eq!(refused(&peer), [[2]]);
}

#[tokio::test]
async fn nobody_is_judged_by_a_store_that_does_not_answer() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let peer = watching(&bed, &gateway).await;
    gateway.ports.remove_member(team(), user(2)).await.unwrap();
    bed.weather.lock().away = true;
    gateway.ports.judge_again(monotonic_ms()).await;
    assert!(refused(&peer).is_empty());
    bed.weather.lock().away = false;
    gateway.ports.judge_again(monotonic_ms()).await;
    assert_eq!(refused(&peer), [[2]]);
}

#[tokio::test]
async fn nothing_is_judged_while_another_process_takes_over() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let peer = watching(&bed, &gateway).await;
    gateway.ports.remove_member(team(), user(2)).await.unwrap();
    gateway.ports.hold_pulse().await;
    gateway.ports.judge_again(monotonic_ms()).await;
    assert!(refused(&peer).is_empty());
    gateway.ports.pulse.go_on();
    gateway.ports.judge_again(monotonic_ms()).await;
    assert_eq!(refused(&peer), [[2]]);
}
