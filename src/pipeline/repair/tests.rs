//! What is filled in from the log.

use std::sync::Arc;

use futures_util::poll;

use super::super::Outgoing;
use super::super::testbed::{Testbed, outgoing, pushed, team, user};
use crate::hub::Frame;
use crate::message::Mark;
use crate::telemetry::FrameKind;
use crate::types::monotonic_ms;
use crate::wire::pb::Ack;
use crate::wire::{Payload, encode, reply};

#[tokio::test]
async fn nobody_is_given_his_own_message_while_it_is_on_its_way_here() {
    let (bed, team) = (Testbed::new(), team());
    let gateway = bed.gateway("gw");
    let ports = &gateway.ports;
    bed.make_team(&[1, 2]);
    let (sender, other) = (bed.connect(&gateway, 1).await, bed.connect(&gateway, 2).await);
    ports.look_up_members(&team, &[user(1), user(2)]).await;
    // The first was sent elsewhere and is late; the second was stored from here.
    bed.append(&team, 1).await;
    let own = bed.append(&team, 2).await;
    ports.in_flight.set(0, [2]);
    ports.hub.gaps.note(&team, monotonic_ms(), None);
    let mut repair = Box::pin(ports.repair(&team, None));
    assert!(poll!(&mut repair).is_pending());
    assert_eq!((pushed(&sender), pushed(&other)), (vec![], vec![]));
    let ack = Frame::control(encode(&reply("", Payload::Ack(Ack::default()))), FrameKind::Ack);
    sender.acknowledge(ack, &Mark::of(&own).unwrap());
    let audience = bed.model.roster(&team, &[]).map(|roster| Arc::new(roster.audience));
    let own = Outgoing { except: Some(Arc::clone(&sender)), ..outgoing(&own, Vec::new(), audience) };
    ports.deliver(&[own]).await;
    ports.in_flight.set(0, None);
    repair.await;
    assert_eq!((pushed(&sender), pushed(&other)), (vec![1], vec![1, 2]));
    assert!(!ports.hub.gaps.any());
}
