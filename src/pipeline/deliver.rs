//! Fan-out: to the connections here, and one bus item per gateway elsewhere.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

use super::Ports;
use crate::bus::Destination;
use crate::hub::{Class, Frame, Peer};
use crate::message::Mark;
use crate::route::{Route, RouteError};
use crate::store::Audience;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, GatewayRef, UserId, monotonic_ms};
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

/// How long it is believed which gateways hold their lease.
const BELIEVED_MS: u64 = 2_000;

/// The gateways that held their lease a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Living {
    gateways: HashSet<GatewayRef>,
    at: u64,
}

impl Living {
    fn has_all(&self, gateways: &[GatewayRef], now_ms: u64) -> bool {
        let fresh = now_ms.saturating_sub(self.at) < BELIEVED_MS;
        fresh && gateways.iter().all(|gateway| self.gateways.contains(gateway))
    }

    fn set(&mut self, gateways: HashSet<GatewayRef>, now_ms: u64) {
        (self.gateways, self.at) = (gateways, now_ms);
    }
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
                reached.count(outgoing.is_present(*user), here, elsewhere);
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
        for (gateway, connections) in self.routes.gateways().await.unwrap_or_default() {
            if gateway != self.own {
                self.publish(&gateway, delivery(Vec::new(), true, class, envelope));
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

    /// To the members of a group: those here at once, and one item per gateway
    /// that has some. Returns to how many connections and gateways.
    async fn deliver_to_group(
        &self,
        outgoing: &Outgoing,
        mark: &Arc<Mark>,
        audience: &Audience,
        items: &mut Vec<(Destination, BusItem)>,
    ) -> u64 {
        let mut here = 0;
        if let Some(room) = self.hub.rooms.get(&mark.conversation) {
            room.set_gateways(&audience.gateways, monotonic_ms());
            here = self.offer_to_room(&room, &outgoing.frame(), outgoing.except.as_ref(), audience.mver);
        }
        let mut elsewhere = 0;
        for gateway in self.alive(&mark.conversation, &audience.gateways).await {
            let item = Delivery { mver: audience.mver, ..marked(mark, &outgoing.envelope) };
            items.push(addressed(&gateway, Item::Delivery(item)));
            elsewhere += 1;
        }
        metrics().deliveries_local.increment(here);
        metrics().deliveries_remote.increment(elsewhere);
        here + elsewhere
    }

    /// Those of the other gateways that hold their lease. The interest of a
    /// dead one is taken back.
    pub(super) async fn alive(&self, group: &ConversationId, gateways: &[GatewayRef]) -> Vec<GatewayRef> {
        let others: Vec<GatewayRef> =
            gateways.iter().filter(|gateway| **gateway != self.own).cloned().collect();
        if others.is_empty() || self.living.lock().has_all(&others, monotonic_ms()) {
            return others;
        }
        // While that is not known everybody is told.
        let Ok(living) = self.routes.gateways().await else { return others };
        let living: HashSet<GatewayRef> = living.into_iter().map(|(gateway, _)| gateway).collect();
        let (mut alive, dead): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|gateway| living.contains(gateway));
        self.living.lock().set(living, monotonic_ms());
        let mut left = Vec::new();
        for gateway in dead {
            if self.store.leave(&gateway, std::slice::from_ref(group)).await.is_ok() {
                metrics().interests_forgotten.increment(1);
                left.push(gateway);
            }
        }
        if !left.is_empty() {
            alive.extend(self.revived(group, left).await);
        }
        alive
    }

    /// Of gateways whose interest was taken back, those that hold their lease
    /// by now: they may have registered it again before it was, and get it back.
    async fn revived(&self, group: &ConversationId, left: Vec<GatewayRef>) -> Vec<GatewayRef> {
        let living = self.routes.gateways().await;
        let is_living = |gateway: &GatewayRef| {
            living.as_ref().map_or(true, |living| living.iter().any(|(known, _)| known == gateway))
        };
        let revived: Vec<_> = left.into_iter().filter(is_living).collect();
        for gateway in &revived {
            // Interest is registered for a member, whoever that is.
            let Ok(Some(page)) = self.store.members(group, None, 1).await else { continue };
            let wanted: Vec<_> = page.members.iter().map(|(user, _)| (group.clone(), *user)).collect();
            if self.store.join(gateway, &wanted).await.is_err() {
                tracing::warn!(%group, gateway = %gateway.id, "interest of a gateway that is back is lost");
            }
        }
        revived
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
        for (gateway, users) in by_gateway {
            let item = match &outgoing.mark {
                Some(mark) => {
                    Item::Delivery(Delivery { user_ids: users, ..marked(mark, &outgoing.envelope) })
                }
                None => delivery(users, false, outgoing.class, &outgoing.envelope),
            };
            items.push(addressed(gateway, item));
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

/// A stored message, without its addressees.
fn marked(mark: &Mark, envelope: &Envelope) -> Delivery {
    Delivery {
        class: DeliveryClass::Push.into(),
        envelope: prost::Message::encode_to_vec(envelope).into(),
        conversation_id: mark.conversation.to_string(),
        seq: mark.seq,
        epoch: mark.epoch,
        message_id: mark.id,
        ..Delivery::default()
    }
}

/// An item with its gateway, as the bus takes it.
pub(super) fn addressed(gateway: &GatewayRef, item: Item) -> (Destination, BusItem) {
    let to = Destination { gateway: gateway.id.clone(), epoch: gateway.epoch };
    (to, BusItem { item: Some(item) })
}

fn delivery(user_ids: Vec<i64>, all: bool, class: Class, envelope: &Envelope) -> Item {
    let class = match class {
        Class::Push => DeliveryClass::Push,
        Class::Control => DeliveryClass::Control,
        Class::Ephemeral => DeliveryClass::Ephemeral,
    };
    let envelope = prost::Message::encode_to_vec(envelope).into();
    Item::Delivery(Delivery { user_ids, all, class: class.into(), envelope, ..Delivery::default() })
}

#[cfg(test)]
mod tests;
