//! Gateways of one process, delivering to each other by a call. A gateway
//! that stands alone has an exchange to itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Destination, Receiver};
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
}

impl MemoryBus {
    /// Joins; items for this gateway and epoch go to `receiver`.
    #[must_use]
    pub(crate) fn join(exchange: Arc<MemoryExchange>, own: Destination, receiver: Receiver) -> Self {
        exchange.gateways.write().insert(own.gateway.clone(), (own.epoch, receiver));
        Self { exchange, own }
    }

    pub(super) fn publish(&self, to: &Destination, item: BusItem) -> bool {
        let known = self.exchange.gateways.read().get(&to.gateway).cloned();
        metrics().bus_published.increment(1);
        match known {
            Some((epoch, receiver)) if to.epoch.0 == 0 || to.epoch == epoch => {
                metrics().bus_received.increment(1);
                receiver(&self.own.gateway, item);
            }
            _ => metrics().bus_ignored_foreign.increment(1),
        }
        true
    }
}
