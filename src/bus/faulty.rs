//! A bus for tests that loses, repeats, reorders and delays, by chance.
//!
//! What it loses it tells, later, whom it did not reach: as the counters do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{Destination, Receiver};
use crate::types::{Epoch, GatewayId};
use crate::wire::pb::BusItem;

/// How likely items go astray, drawn from the thread's `fastrand`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// An item never arrives.
    pub lost: f64,
    /// It arrives twice.
    pub repeated: f64,
    /// It may be overtaken by others of its source.
    pub reordered: f64,
    /// Longest way, ms.
    pub delay_ms: u64,
}

#[derive(Default)]
struct State {
    faults: Faults,
    gateways: HashMap<GatewayId, (Epoch, Receiver)>,
    /// The arrival of the last item in order, per source and destination.
    last: HashMap<(GatewayId, GatewayId), Instant>,
    /// Items not arrived, per destination.
    lost: HashMap<GatewayId, u64>,
}

/// Who is connected.
#[derive(Default)]
pub(crate) struct FaultyExchange {
    state: Mutex<State>,
}

impl fmt::Debug for FaultyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.state.lock().gateways.keys()).finish()
    }
}

impl FaultyExchange {
    /// From now on.
    pub(crate) fn set(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// How many items have not reached this gateway, ever.
    pub(crate) fn lost(&self, gateway: &GatewayId) -> u64 {
        self.state.lock().lost.get(gateway).copied().unwrap_or(0)
    }
}

/// One gateway on the exchange.
#[derive(Debug)]
pub(crate) struct FaultyBus {
    exchange: Arc<FaultyExchange>,
    own: Destination,
}

impl FaultyBus {
    /// Joins; items for this gateway and epoch go to `receiver`.
    pub(crate) fn join(exchange: Arc<FaultyExchange>, own: Destination, receiver: Receiver) -> Self {
        exchange.state.lock().gateways.insert(own.gateway.clone(), (own.epoch, receiver));
        Self { exchange, own }
    }

    pub(super) fn publish(&self, to: &Destination, item: BusItem) -> bool {
        let mut state = self.exchange.state.lock();
        let known = state.gateways.get(&to.gateway).cloned();
        let Some((_, receiver)) = known.filter(|(epoch, _)| to.epoch.0 == 0 || to.epoch == *epoch) else {
            return true;
        };
        let faults = state.faults;
        if fastrand::f64() < faults.lost {
            *state.lost.entry(to.gateway.clone()).or_default() += 1;
            return true;
        }
        let times = if fastrand::f64() < faults.repeated { 2 } else { 1 };
        for _ in 0..times {
            let mut due = Instant::now() + Duration::from_millis(fastrand::u64(0..=faults.delay_ms));
            if fastrand::f64() >= faults.reordered {
                let last = state.last.entry((self.own.gateway.clone(), to.gateway.clone())).or_insert(due);
                // What is due at the same moment has no order.
                due = due.max(*last + Duration::from_millis(1));
                *last = due;
            }
            let (source, receiver, item) = (self.own.gateway.clone(), Arc::clone(&receiver), item.clone());
            tokio::spawn(async move {
                sleep_until(due).await;
                receiver(&source, item);
            });
        }
        true
    }
}
