//! Port: hand this to that gateway.
//!
//! Every message names its source, destination and epoch, and carries a
//! counter per (source, destination), repeated once the traffic pauses, so
//! that a receiver sees a hole even when the last message was lost. Pub/sub is
//! a wake-up, never the truth.
//!
//! Items for one destination leave in one publish per batch, in order.
//! Publishing never waits: a full queue drops and counts. What arrives is
//! handed to the receiver given at the start, on the subscriber's task, which
//! therefore must not wait either.
//!
//! Called by `pipeline` (publish); `gateway` wires the receiver.

#[cfg(test)]
mod conformance;
mod counter;
#[cfg(test)]
pub(crate) mod faulty;
mod memory;
mod redis;

use std::sync::Arc;

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
        let queued = match self {
            Self::Memory(bus) => bus.publish(&to, item),
            Self::Redis(bus) => bus.publish(to, item),
            #[cfg(test)]
            Self::Faulty(bus) => bus.publish(&to, item),
        };
        if !queued {
            metrics().dropped_bus_full.increment(1);
        }
        queued
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
