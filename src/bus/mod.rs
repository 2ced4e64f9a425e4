//! Port: hand this to that gateway.
//!
//! Every message names its source, destination and epoch, and carries a
//! counter per (source, destination), repeated once the traffic pauses, so
//! that a receiver sees a hole even when the last message was lost. Pub/sub is
//! a wake-up, never the truth: what may have been missed is told by
//! [`Disturbances`], and whoever waits there reads the truth elsewhere.
//!
//! Items queued together leave in one publish per destination, in order.
//! Publishing never waits: a full queue drops, counts, and shows at the
//! destination as a hole. What arrives is handed to the receiver given at the start, on the subscriber's task, which
//! therefore must not wait either.
//!
//! Called by `pipeline` (publish); `gateway` wires the receiver.

#[cfg(test)]
mod conformance;
mod counter;
mod disturbance;
#[cfg(test)]
pub(crate) mod faulty;
mod memory;
mod redis;

use std::sync::Arc;

pub(crate) use counter::{Heard, Numbers};
pub(crate) use disturbance::{Cause, Disturbance, Disturbances};
pub(crate) use memory::{MemoryBus, MemoryExchange};
pub(crate) use redis::RedisBus;

use crate::telemetry::metrics;
use crate::types::Epoch;
use crate::types::GatewayId;
use crate::wire::pb::{BusItem, BusMessage};

/// The layout this build writes and the newest it reads.
pub(crate) const BUS_VERSION: u32 = 1;

/// Takes what arrives: the source gateway and one item.
pub(crate) type Receiver = Arc<dyn Fn(&GatewayId, BusItem) + Send + Sync>;

/// A gateway as an address; epoch 0 = whichever runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    /// Its name.
    pub gateway: GatewayId,
    /// Its cold start.
    pub epoch: Epoch,
}

/// The backends.
#[derive(Debug)]
pub(crate) enum Bus {
    /// Gateways of one process.
    Memory(MemoryBus),
    /// Redis pub/sub.
    Redis(RedisBus),
    /// Gateways of one process, and much that goes wrong between them.
    #[cfg(test)]
    Faulty(faulty::FaultyBus),
}

impl Bus {
    /// `Deliver`: queues an item for a gateway. Never waits; returns whether
    /// there was room.
    pub(crate) fn publish(&self, to: Destination, item: BusItem) -> bool {
        self.publish_all(vec![(to, item)])
    }

    /// Queues items that leave together: those for one gateway are one bus
    /// message, unless they are thousands. Never waits; returns whether there
    /// was room for all.
    pub(crate) fn publish_all(&self, items: Vec<(Destination, BusItem)>) -> bool {
        let dropped = match self {
            Self::Memory(bus) => bus.publish_all(items),
            Self::Redis(bus) => bus.publish_all(items),
            #[cfg(test)]
            Self::Faulty(bus) => bus.publish_all(items),
        };
        metrics().dropped_bus_full.increment(u64::try_from(dropped).unwrap_or(u64::MAX));
        dropped == 0
    }

    /// What may have been missed.
    #[must_use]
    pub(crate) fn disturbances(&self) -> &Disturbances {
        match self {
            Self::Memory(bus) => bus.disturbances(),
            Self::Redis(bus) => bus.disturbances(),
            #[cfg(test)]
            Self::Faulty(bus) => bus.disturbances(),
        }
    }

    /// Divides what is heard at this mark, once it comes: what is behind it is
    /// kept until [`Self::resume`].
    pub(crate) fn expect_mark(&self, nonce: u64) {
        if let Self::Redis(bus) = self {
            bus.expect_mark(nonce);
        }
    }

    /// Publishes the mark to this gateway; returns whether it left.
    pub(crate) async fn publish_mark(&self, nonce: u64) -> bool {
        match self {
            Self::Redis(bus) => bus.publish_mark(nonce).await,
            _ => true,
        }
    }

    /// Waits until the mark has come.
    pub(crate) async fn mark_passed(&self) {
        if let Self::Redis(bus) = self {
            bus.mark_passed().await;
        }
    }

    /// The numbers given and heard up to the mark, once everything queued is
    /// published; `None` where nothing is numbered.
    pub(crate) async fn standing(&self) -> Option<(Numbers, Vec<Heard>)> {
        match self {
            Self::Redis(bus) => bus.standing().await,
            _ => None,
        }
    }

    /// Hands out what was kept behind the mark and everything from then on;
    /// with the standing of another process it goes on as that one.
    pub(crate) async fn resume(&self, standing: Option<(Numbers, Vec<Heard>)>) {
        if let Self::Redis(bus) = self {
            bus.resume(standing).await;
        }
    }

    /// Waits until everything queued so far is published, and tells each
    /// destination the last number once more.
    pub(crate) async fn flush(&self) {
        if let Self::Redis(bus) = self {
            bus.flush().await;
        }
    }
}

/// Whether `message` is for this gateway, counting why not.
fn accepts(message: &BusMessage, own: &Destination) -> bool {
    if message.version > BUS_VERSION {
        metrics().bus_ignored_version.increment(1);
        return false;
    }
    let epoch = message.destination_epoch;
    let mine = message.destination_gateway == own.gateway.as_str() && (epoch == 0 || epoch == own.epoch.0);
    if !mine {
        metrics().bus_ignored_foreign.increment(1);
    }
    mine
}
