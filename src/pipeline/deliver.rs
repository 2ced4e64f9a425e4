//! Fan-out: to the connections here, and one bus item per gateway elsewhere.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Ports;
use crate::bus::Destination;
use crate::hub::{Class, Frame, Peer};
use crate::route::Route;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{GatewayRef, UserId};
use crate::wire::encode;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, Delivery, DeliveryClass, Envelope};

/// How often the receivers of a stored message are looked up before the
/// delivery is left to their next pull.
const LOOKUPS: u32 = 3;
const LOOKUP_PAUSE: Duration = Duration::from_millis(100);

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
    /// others after one look-up of all users. Never fails: what is not
    /// reached is counted.
    pub(crate) async fn deliver(&self, batch: &[Outgoing]) -> Reached {
        let here: Vec<Vec<u64>> = batch.iter().map(|outgoing| self.deliver_here(outgoing)).collect();
        let mut users: Vec<UserId> =
            batch.iter().flat_map(|outgoing| outgoing.users.iter().copied()).collect();
        users.sort_unstable();
        users.dedup();
        let patient = batch.iter().any(|outgoing| outgoing.class == Class::Push);
        let routes: HashMap<UserId, Route> = match self.lookup(&users, patient).await {
            Some(routes) => users.into_iter().zip(routes).collect(),
            None => {
                metrics().deliveries_lookup_failed.increment(u64::try_from(users.len()).unwrap_or(u64::MAX));
                HashMap::new()
            }
        };
        let mut reached = Reached::default();
        for (outgoing, here) in batch.iter().zip(here) {
            let elsewhere = self.deliver_elsewhere(outgoing, &routes);
            for ((user, here), elsewhere) in outgoing.users.iter().zip(here).zip(elsewhere) {
                reached.count(outgoing.is_present(*user), here, elsewhere);
            }
        }
        reached
    }

    /// To every connection of this gateway and, over the bus, of the others.
    pub(crate) async fn deliver_all(&self, envelope: &Envelope, class: Class, kind: FrameKind) -> Reached {
        let frame = Frame { bytes: encode(envelope), class, kind };
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
        let to = Destination { gateway: gateway.id.clone(), epoch: gateway.epoch };
        self.bus.publish(to, BusItem { item: Some(item) });
    }

    /// Per user, to how many connections here.
    fn deliver_here(&self, outgoing: &Outgoing) -> Vec<u64> {
        // Encoded once, and not at all when nobody is here.
        let mut frame = None;
        let to = |user: &UserId| {
            if !self.hub.has(*user) {
                return 0;
            }
            let frame = frame.get_or_insert_with(|| Frame {
                bytes: encode(&outgoing.envelope),
                class: outgoing.class,
                kind: outgoing.kind,
            });
            u64::try_from(self.hub.deliver(*user, frame, outgoing.except.as_ref())).unwrap_or(0)
        };
        outgoing.users.iter().map(to).collect()
    }

    /// Per user, how many devices elsewhere; one item per gateway.
    fn deliver_elsewhere(&self, outgoing: &Outgoing, routes: &HashMap<UserId, Route>) -> Vec<u64> {
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
            self.publish(gateway, delivery(users, false, outgoing.class, &outgoing.envelope));
        }
        counts
    }

    async fn lookup(&self, users: &[UserId], patient: bool) -> Option<Vec<Route>> {
        for attempt in 1..=LOOKUPS {
            match self.routes.query(users).await {
                Ok(routes) => return Some(routes),
                Err(_) if patient && attempt < LOOKUPS => sleep(LOOKUP_PAUSE).await,
                Err(_) => break,
            }
        }
        None
    }
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
