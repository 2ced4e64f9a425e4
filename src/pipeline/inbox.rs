//! What other gateways hand to this one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::kick;
use crate::hub::{Class, Frame, Hub};
use crate::telemetry::{FrameKind, metrics};
use crate::types::{GatewayId, UserId};
use crate::wire::frame_encoded;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, Delivery, DeliveryClass};

/// Receives bus items; needs the hub only, so it exists before the pipeline.
#[derive(Debug)]
pub(crate) struct Inbox {
    hub: Arc<Hub>,
    probes: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Inbox {
    /// Delivers into `hub`.
    #[must_use]
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { hub, probes: Mutex::default() })
    }

    /// Takes one item. Never waits.
    pub(crate) fn receive(&self, _source: &GatewayId, item: BusItem) {
        match item.item {
            Some(Item::Delivery(delivery)) => self.deliver(&delivery),
            Some(Item::Kick(order)) => {
                kick::obey(&self.hub, &order);
            }
            Some(Item::Probe(probe)) => {
                if let Some(waiting) = self.probes.lock().remove(&probe.nonce) {
                    // Nobody waits any more: the probe was late.
                    let _ = waiting.send(());
                }
            }
            // Told by whoever serves groups.
            Some(Item::Membership(_)) => {}
            // An item of a newer gateway; its version said it may be skipped.
            None => metrics().bus_ignored_version.increment(1),
        }
    }

    /// A number to probe with, and its arrival.
    pub(crate) fn expect_probe(&self) -> (u64, oneshot::Receiver<()>) {
        let nonce = fastrand::u64(1..);
        let (arrived, arrival) = oneshot::channel();
        let mut probes = self.probes.lock();
        probes.retain(|_, waiting| !waiting.is_closed());
        probes.insert(nonce, arrived);
        (nonce, arrival)
    }

    fn deliver(&self, delivery: &Delivery) {
        let (class, kind) = match delivery.class() {
            DeliveryClass::Push => (Class::Push, FrameKind::Push),
            DeliveryClass::Ephemeral => (Class::Ephemeral, FrameKind::Ephemeral),
            DeliveryClass::Control | DeliveryClass::Unspecified => (Class::Control, FrameKind::Ack),
        };
        let frame = Frame { bytes: frame_encoded(&delivery.envelope), class, kind };
        let reached = if delivery.all {
            self.hub.deliver_all(&frame)
        } else {
            let users = delivery.user_ids.iter().filter_map(|&id| UserId::new(id).ok());
            users.map(|user| self.hub.deliver(user, &frame, None)).sum()
        };
        metrics().deliveries_local.increment(u64::try_from(reached).unwrap_or(u64::MAX));
    }
}
