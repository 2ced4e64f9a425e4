//! Rounds of gateways that share everything.

use super::super::testbed::{Gateway, Testbed, received, user};
use super::*;
use crate::wire::Payload;
use crate::wire::pb::PresenceEvent;

fn events(peer: &Peer) -> Vec<PresenceEvent> {
    let event = |payload| if let Payload::PresenceEvent(event) = payload { Some(event) } else { None };
    received(peer).into_iter().filter_map(event).collect()
}

/// A connection at `gateway` watches a user, as far as the tables know.
async fn watching(bed: &Testbed, gateway: &Gateway, id: i64) -> Arc<Peer> {
    let peer = bed.connect(gateway, 42).await;
    let mut watching = gateway.ports.pulse.watching.lock();
    watching.admit(&peer);
    watching.watches.expect(peer.identity.conn, &[user(id)], 10).unwrap();
    watching.watches.begin(peer.identity.conn, &[user(id)]);
    watching.watches.unexpect(peer.identity.conn, &[user(id)]);
    drop(watching);
    peer
}

fn change(online: bool, version: u64) -> (UserId, State) {
    (user(7), State { online, since: 5, version, devices: Vec::new() })
}

#[tokio::test]
async fn who_is_heard_is_told_once() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let watcher = watching(&bed, &gateway, 7).await;
    gateway.ports.pulse.heard(user(7), monotonic_ms());
    gateway.ports.beat().await;
    let told = events(&watcher);
    assert_eq!(told.iter().map(|event| (event.user_id, event.online)).collect::<Vec<_>>(), [(7, true)]);
    gateway.ports.pulse.heard(user(7), monotonic_ms());
    gateway.ports.beat().await;
    assert!(events(&watcher).is_empty());
    assert_eq!(gateway.ports.pulse.online(), Some(1));
}

#[tokio::test]
async fn what_another_gateway_tells_is_told_once_and_in_order() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let watcher = watching(&bed, &gateway, 7).await;
    for (online, version) in [(true, 5), (true, 5), (false, 3), (false, 9)] {
        let changes = PresenceChanges { changes: vec![of_change(&change(online, version))] };
        gateway.receive(Item::Presence(changes));
    }
    let told: Vec<_> = events(&watcher).iter().map(|event| (event.online, event.version)).collect();
    assert_eq!(told, [(true, 5), (false, 9)]);
    let broken = PresenceChange { user_id: -7, online: true, version: 10, ..PresenceChange::default() };
    gateway.receive(Item::Presence(PresenceChanges { changes: vec![broken] }));
    assert!(events(&watcher).is_empty());
}

#[tokio::test]
async fn a_crowd_is_said_to_be_here_in_parts() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    for id in 1..=2 * i64::try_from(HEARD).unwrap() {
        gateway.ports.pulse.heard(user(id), monotonic_ms());
    }
    for round in 1..=2 {
        gateway.ports.beat().await;
        assert_eq!(gateway.ports.pulse.online(), Some(round * u64::try_from(HEARD).unwrap()));
    }
}

#[tokio::test]
async fn nothing_is_said_while_another_process_takes_over() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let watcher = watching(&bed, &gateway, 7).await;
    gateway.ports.pulse.heard(user(7), monotonic_ms());
    gateway.ports.hold_pulse().await;
    assert_eq!(events(&watcher).len(), 1, "what was to be said was said before");
    assert!(gateway.ports.pulse.heard.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_back_in_the_moment_he_left_stays() {
    crate::types::simulated::begin();
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    ports.pulse.heard(user(7), monotonic_ms());
    ports.beat().await;
    tokio::time::sleep(EVERY).await;
    let at = u64::try_from(crate::types::unix_micros()).unwrap();
    ports.note_departed(std::iter::once(user(7)), &[Unbound::Last { at }]);
    ports.pulse.heard(user(7), monotonic_ms());
    for _ in 0..20 {
        ports.beat().await;
        tokio::time::sleep(EVERY).await;
    }
    assert_eq!(ports.pulse.online(), Some(1));
    // Not so who does not come back.
    let at = u64::try_from(crate::types::unix_micros()).unwrap();
    ports.note_departed(std::iter::once(user(7)), &[Unbound::Last { at }]);
    for _ in 0..20 {
        ports.beat().await;
        tokio::time::sleep(EVERY).await;
    }
    assert_eq!(ports.pulse.online(), Some(0));
}
