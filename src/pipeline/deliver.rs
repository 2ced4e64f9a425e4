//! Fan-out: to the connections here, and one bus item per gateway elsewhere.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;

use super::Ports;
use crate::bus::Destination;
use crate::hub::{Class, Frame, Held, Peer, Room};
use crate::message::Mark;
use crate::route::{Route, RouteError};
use crate::store::Audience;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{GatewayRef, UserId, monotonic_ms};
use crate::wire::encode;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, Delivery, DeliveryClass, Envelope};

/// One frame on its way to all devices of some users.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// To whom.
    pub users: Vec<UserId>,
    /// Except this connection, the one it came from.
    pub except: Option<Arc<Peer>>,
    /// The frame.
    pub envelope: Envelope,
    /// Its worth.
    pub class: Class,
    /// How it is counted.
    pub kind: FrameKind,
    /// Which stored message it is.
    pub mark: Option<Arc<Mark>>,
    /// Of a message in a group, whose members get it instead of `users`.
    pub audience: Option<Arc<Audience>>,
}

/// Who was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Users with a live device.
    pub online: u64,
    /// Users without one.
    pub offline: u64,
    /// Devices the frame was handed to: outboxes here, seats elsewhere.
    pub delivered: u64,
}

impl Outgoing {
    fn frame(&self) -> Frame {
        let bytes = encode(&self.envelope);
        Frame { bytes, class: self.class, kind: self.kind, mark: self.mark.clone() }
    }

    /// The same for other gateways, without its addressees.
    fn delivery(&self) -> Delivery {
        let delivery = delivery(self.class, &self.envelope);
        let Some(mark) = &self.mark else { return delivery };
        Delivery {
            conversation_id: mark.conversation.text(),
            seq: mark.seq,
            epoch: mark.epoch,
            message_id: mark.id,
            ..delivery
        }
    }

    /// Whether it comes from a connection of this user, who is online then
    /// even if no other device of his is.
    fn is_present(&self, user: UserId) -> bool {
        self.except.as_ref().is_some_and(|peer| peer.identity.user == user)
    }
}

impl AddAssign for Reached {
    fn add_assign(&mut self, more: Self) {
        self.online += more.online;
        self.offline += more.offline;
        self.delivered += more.delivered;
    }
}

impl Reached {
    fn count(&mut self, present: bool, here: u64, elsewhere: u64) {
        let online = present || here + elsewhere > 0;
        self.delivered += here + elsewhere;
        *(if online { &mut self.online } else { &mut self.offline }) += 1;
        metrics().deliveries_local.increment(here);
        metrics().deliveries_remote.increment(elsewhere);
        metrics().deliveries_offline.increment(u64::from(!online));
    }
}

impl Ports {
    /// Delivers in order. Connections here get their frames at once; the
    /// others after one look-up of all users. Never fails: where that has no
    /// answer, stored messages are owed, and what else is not reached is
    /// counted.
    pub(crate) async fn deliver(&self, batch: &[Outgoing]) -> Reached {
        let mut reached = Reached::default();
        // Queued as one: what a gateway gets of a batch leaves together.
        let mut items = Vec::new();
        reached.delivered += self.deliver_to_rooms(batch).await;
        for outgoing in batch {
            if let (Some(mark), Some(audience)) = (&outgoing.mark, &outgoing.audience) {
                reached.delivered += self.deliver_to_group(outgoing, mark, audience, &mut items).await;
            }
        }
        let here: Vec<Vec<u64>> = batch.iter().map(|outgoing| self.deliver_here(outgoing)).collect();
        let routes = self.look_up(batch).await.unwrap_or_else(|_| {
            batch.iter().for_each(|outgoing| self.not_looked_up(outgoing));
            HashMap::new()
        });
        for (outgoing, here) in batch.iter().zip(here) {
            let elsewhere = self.deliver_elsewhere(outgoing, &routes, &mut items);
            for ((user, here), elsewhere) in outgoing.users.iter().zip(here).zip(elsewhere) {
                // Also where it comes too early, or he is to pull.
                let present = here > 0 || outgoing.is_present(*user) || self.hub.has(*user);
                reached.count(present, here, elsewhere);
            }
        }
        self.bus.publish_all(items);
        reached
    }

    /// To every connection of this gateway and, over the bus, of the others.
    pub(crate) async fn deliver_all(&self, envelope: &Envelope, class: Class, kind: FrameKind) -> Reached {
        let frame = Frame { bytes: encode(envelope), class, kind, mark: None };
        let here = u64::try_from(self.hub.deliver_all(&frame)).unwrap_or(u64::MAX);
        let mut reached =
            Reached { online: u64::try_from(self.hub.users()).unwrap_or(0), offline: 0, delivered: here };
        let item = Item::Delivery(Delivery { all: true, ..delivery(class, envelope) });
        for (gateway, connections) in self.routes.gateways().await.unwrap_or_default() {
            if gateway != self.own {
                self.publish(&gateway, item.clone());
                reached.delivered += connections;
                reached.online += connections;
            }
        }
        reached
    }

    /// Queues an item for a gateway.
    pub(crate) fn publish(&self, gateway: &GatewayRef, item: Item) {
        let (to, item) = addressed(gateway, item);
        self.bus.publish(to, item);
    }

    /// Per user, to how many connections here.
    fn deliver_here(&self, outgoing: &Outgoing) -> Vec<u64> {
        // Not encoded at all when nobody is here.
        if !outgoing.users.iter().any(|user| self.hub.has(*user)) {
            return vec![0; outgoing.users.len()];
        }
        let frame = outgoing.frame();
        let except = outgoing.except.as_ref();
        if frame.mark.is_some() {
            return self.offer_to_users(&outgoing.users, &frame, except);
        }
        let to = |user: &UserId| u64::try_from(self.hub.deliver(*user, &frame, except)).unwrap_or(0);
        outgoing.users.iter().map(to).collect()
    }

    /// To the members here of the groups in a batch; returns to how many
    /// connections. What is of one group goes to each of them at once.
    async fn deliver_to_rooms(&self, batch: &[Outgoing]) -> u64 {
        let mut rooms: Vec<(Arc<Room>, Vec<Held>)> = Vec::new();
        for outgoing in batch {
            let (Some(mark), Some(audience)) = (&outgoing.mark, &outgoing.audience) else { continue };
            let Some(room) = self.hub.rooms.get(&mark.conversation) else { continue };
            room.set_gateways(&audience.gateways, monotonic_ms());
            if self.lacks_interest(&room, audience) {
                // Read again, and registered behind that.
                let mver = room.mver().max(audience.mver).saturating_add(1);
                self.hub.gaps.outdated(&mark.conversation, mver, monotonic_ms());
            }
            let (frame, except) = (outgoing.frame(), outgoing.except.clone());
            let held = Held { frame, except, mver: audience.mver };
            match rooms.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &room)) {
                Some((_, messages)) => messages.push(held),
                None => rooms.push((room, vec![held])),
            }
        }
        let mut here = 0;
        for (room, messages) in rooms {
            here += self.offer_to_room_gently(&room, &messages).await;
        }
        metrics().deliveries_local.increment(here);
        here
    }

    /// To the gateways elsewhere that have members of a group, one item each;
    /// returns to how many.
    async fn deliver_to_group(
        &self,
        outgoing: &Outgoing,
        mark: &Arc<Mark>,
        audience: &Audience,
        items: &mut Vec<(Destination, BusItem)>,
    ) -> u64 {
        let mut elsewhere = 0;
        let gateways = self.alive(&mark.conversation, &audience.gateways).await;
        if !gateways.is_empty() {
            let item = Item::Delivery(Delivery { mver: audience.mver, ..outgoing.delivery() });
            items.extend(gateways.iter().map(|gateway| addressed(gateway, item.clone())));
            elsewhere = u64::try_from(gateways.len()).unwrap_or(u64::MAX);
        }
        metrics().deliveries_remote.increment(elsewhere);
        elsewhere
    }

    /// Per user, how many devices elsewhere; one item per gateway.
    pub(super) fn deliver_elsewhere(
        &self,
        outgoing: &Outgoing,
        routes: &HashMap<UserId, Route>,
        items: &mut Vec<(Destination, BusItem)>,
    ) -> Vec<u64> {
        let mut by_gateway: Vec<(&GatewayRef, Vec<i64>)> = Vec::new();
        let mut counts = Vec::with_capacity(outgoing.users.len());
        for user in &outgoing.users {
            let devices = routes.get(user).map(|route| route.devices.as_slice()).unwrap_or_default();
            let mut elsewhere = 0;
            for device in devices.iter().filter(|device| device.seat.gateway != self.own) {
                elsewhere += 1;
                let gateway = &device.seat.gateway;
                match by_gateway.iter_mut().find(|(known, _)| *known == gateway) {
                    Some((_, users)) if users.contains(&user.get()) => {}
                    Some((_, users)) => users.push(user.get()),
                    None => by_gateway.push((gateway, vec![user.get()])),
                }
            }
            counts.push(elsewhere);
        }
        if !by_gateway.is_empty() {
            let delivery = outgoing.delivery();
            for (gateway, user_ids) in by_gateway {
                let item = Item::Delivery(Delivery { user_ids, ..delivery.clone() });
                items.push(addressed(gateway, item));
            }
        }
        counts
    }

    /// Where all users of these are; asked for in one round trip.
    pub(super) async fn look_up(
        &self,
        batch: impl IntoIterator<Item = &Outgoing>,
    ) -> Result<HashMap<UserId, Route>, RouteError> {
        let mut users: Vec<UserId> =
            batch.into_iter().flat_map(|outgoing| outgoing.users.iter().copied()).collect();
        users.sort_unstable();
        users.dedup();
        let routes = self.routes.query(&users).await?;
        Ok(users.into_iter().zip(routes).collect())
    }

    fn not_looked_up(&self, outgoing: &Outgoing) {
        if outgoing.users.is_empty() {
            return;
        }
        if outgoing.mark.is_some() {
            return self.owed.add(outgoing);
        }
        let users = u64::try_from(outgoing.users.len()).unwrap_or(u64::MAX);
        metrics().deliveries_lookup_failed.increment(users);
    }
}

/// An item with its gateway, as the bus takes it.
pub(super) fn addressed(gateway: &GatewayRef, item: Item) -> (Destination, BusItem) {
    let to = Destination { gateway: gateway.id.clone(), epoch: gateway.epoch };
    (to, BusItem { item: Some(item) })
}

/// A frame as it crosses the bus, without its addressees.
fn delivery(class: Class, envelope: &Envelope) -> Delivery {
    let class = match class {
        Class::Push => DeliveryClass::Push,
        Class::Control => DeliveryClass::Control,
        Class::Ephemeral => DeliveryClass::Ephemeral,
    };
    let envelope = prost::Message::encode_to_vec(envelope).into();
    Delivery { class: class.into(), envelope, ..Delivery::default() }
}

#[cfg(test)]
mod tests;
