//! What goes wrong while the world runs, and what a gateway does about it once
//! it learns of it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::sleep;

use super::world::{Gateway, Stay, World, groups, user};
use crate::bus::Cause;
use crate::store::{Changed, MemberChange};
use crate::types::ConversationId;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{ConversationChange, ConversationEvent, Membership};
use crate::wire::{Payload, reply};

/// Goes on until the world settles.
pub(super) async fn rage(world: Arc<World>) {
    while !world.is_settling() {
        sleep(Duration::from_millis(fastrand::u64(100..1_200))).await;
        if world.is_settling() {
            return;
        }
        match fastrand::u32(0..6) {
            0 if world.plan.outages => outage(&world).await,
            1 if world.plan.damage => damage(&world).await,
            2..=4 if world.plan.members_change => change_member(&world).await,
            _ => {}
        }
    }
}

/// The store is away for a while; then each gateway finds its way back.
async fn outage(world: &Arc<World>) {
    world.trace.note(None, "-- the store is away".to_owned());
    world.weather.lock().away = true;
    sleep(Duration::from_millis(fastrand::u64(50..4_000))).await;
    world.weather.lock().away = false;
    world.trace.note(None, "-- the store is back".to_owned());
    recover_all(world);
}

pub(super) fn recover_all(world: &Arc<World>) {
    for at in 0..world.gateways.len() {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
            if let Some(gateway) = world.gateways.get(at) {
                recover(gateway).await;
            }
        });
    }
}

/// What a gateway does when it has the store and the bus again.
async fn recover(gateway: &Gateway) {
    let ports = &gateway.ports;
    ports.rebind_all().await;
    ports.register_interest().await;
    ports.bus.disturbances().report(Cause::Resubscribed, 0);
}

async fn damage(world: &Arc<World>) {
    let all = world.conversations();
    let one = all.get(fastrand::usize(0..all.len()));
    let note = |text: String| world.trace.note(one, format!("-- {text}"));
    let Some(conversation) = one else { return };
    match fastrand::u32(0..8) {
        0 => {
            world.trace.note(None, "-- everything is wiped".to_owned());
            world.model.wipe();
            world.acked.lock().clear();
            sleep(Duration::from_millis(fastrand::u64(1..500))).await;
            world.create_groups();
            world.trace.note(None, "-- the groups are there again".to_owned());
            for group in groups() {
                let members = (1..=world.plan.users).filter(|id| world.since(&group, user(*id)).is_some());
                let membership = membership(&group, 1, members.collect(), ConversationChange::Joined, 0);
                tell(world, &membership);
            }
        }
        1..=2 => {
            note("its epoch is raised".to_owned());
            world.model.raise(conversation);
        }
        _ => {
            let lost = world.model.lose_tail(conversation, fastrand::usize(1..6));
            let left = i64::try_from(world.model.all(conversation).len()).unwrap();
            note(format!("{lost} messages are lost, {left} left"));
            world.acked.lock().retain(|(of, ..), acked| of != conversation || acked.seq <= left);
            for ((of, _), stays) in world.stays.lock().iter_mut() {
                if of == conversation {
                    stays.iter_mut().for_each(|stay| stay.since = stay.since.min(left));
                }
            }
        }
    }
    recover_all(world);
}

/// Every gateway is told, by the bus.
fn tell(world: &World, membership: &Membership) {
    let any = world.gateways.first();
    for gateway in &world.gateways {
        any.iter().for_each(|from| from.ports.publish(&gateway.own, Item::Membership(membership.clone())));
    }
}

async fn change_member(world: &Arc<World>) {
    let [group, _] = groups();
    let who = user(fastrand::i64(1..=world.plan.users));
    let key = (group.clone(), who);
    let is_in = world.since(&group, who).is_some();
    // The backend tries until it has an answer; the model gives one at once.
    let (change, what, since_seq) = if is_in {
        let change = world.model.remove_member(&group, who);
        let top = i64::try_from(world.model.all(&group).len()).unwrap();
        if let Some(stay) = world.stays.lock().get_mut(&key).and_then(|stays| stays.last_mut()) {
            stay.until = Some(top);
        }
        world
            .trace
            .note(Some(&group), format!("-- {who} is removed at {top}, mver {}", change.audience.mver));
        (change, ConversationChange::Removed, 0)
    } else {
        let change = world.model.put_member(&group, who, MemberChange::default());
        let Changed::Joined(member) = change.changed else { return };
        let since = member.since_seq;
        world.stays.lock().entry(key).or_default().push(Stay { since, until: None });
        world.trace.note(Some(&group), format!("-- {who} joins at {since}, mver {}", change.audience.mver));
        (change, ConversationChange::Joined, since)
    };
    tell(world, &membership(&group, change.audience.mver, vec![who.get()], what, since_seq));
}

/// A change as gateways tell it each other; to each user it is about himself.
fn membership(
    group: &ConversationId,
    mver: u64,
    user_ids: Vec<i64>,
    change: ConversationChange,
    since_seq: i64,
) -> Membership {
    let conversation_id = group.to_string();
    let event = ConversationEvent {
        conversation_id: conversation_id.clone(),
        change: change.into(),
        since_seq,
        ..ConversationEvent::default()
    };
    let envelope = reply("", Payload::ConversationEvent(event)).encode_to_vec().into();
    Membership { conversation_id, mver, user_ids, envelope, to_members: false }
}
