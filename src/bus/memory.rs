//! Gateways of one process, delivering to each other by a call. A gateway
//! that stands alone has an exchange to itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Destination, Disturbances, Receiver};
use crate::telemetry::metrics;
use crate::types::{Epoch, GatewayId};
use crate::wire::pb::BusItem;

/// Who is connected.
#[derive(Default)]
pub(crate) struct MemoryExchange {
    gateways: RwLock<HashMap<GatewayId, (Epoch, Receiver)>>,
}

impl fmt::Debug for MemoryExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.gateways.read().keys()).finish()
    }
}

/// One gateway on the exchange.
#[derive(Debug)]
pub(crate) struct MemoryBus {
    exchange: Arc<MemoryExchange>,
    own: Destination,
    disturbances: Disturbances,
}

impl MemoryBus {
    /// Joins; items for this gateway and epoch go to `receiver`.
    #[must_use]
    pub(crate) fn join(exchange: Arc<MemoryExchange>, own: Destination, receiver: Receiver) -> Self {
        exchange.gateways.write().insert(own.gateway.clone(), (own.epoch, receiver));
        Self { exchange, own, disturbances: Disturbances::default() }
    }

    /// Of which there are none by itself.
    pub(super) const fn disturbances(&self) -> &Disturbances {
        &self.disturbances
    }

    /// Returns how many were dropped: none.
    pub(super) fn publish_all(&self, items: Vec<(Destination, BusItem)>) -> usize {
        for (to, item) in items {
            self.publish(&to, item);
        }
        0
    }

    fn publish(&self, to: &Destination, item: BusItem) {
        let known = self.exchange.gateways.read().get(&to.gateway).cloned();
        metrics().bus_published.increment(1);
        match known {
            Some((epoch, receiver)) if to.epoch.0 == 0 || to.epoch == epoch => {
                metrics().bus_received.increment(1);
                receiver(&self.own.gateway, item);
            }
            _ => metrics().bus_ignored_foreign.increment(1),
        }
    }
}
