//! A bus for tests that loses, repeats, reorders and delays, by chance.
//!
//! What it loses it tells, later, whom it did not reach: as the counters do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::disturbance::Cause;
use super::{Destination, Disturbances, Receiver};
use crate::types::{Epoch, GatewayId, unix_ms};
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
    /// Nobody is told of what is lost.
    pub silent: bool,
}

#[derive(Default)]
struct State {
    faults: Faults,
    gateways: HashMap<GatewayId, (Epoch, Receiver, Disturbances)>,
    /// The arrival of the last item in order, per source and destination.
    last: HashMap<(GatewayId, GatewayId), Instant>,
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
}

/// One gateway on the exchange.
#[derive(Debug)]
pub(crate) struct FaultyBus {
    exchange: Arc<FaultyExchange>,
    own: Destination,
    disturbances: Disturbances,
}

impl FaultyBus {
    /// Joins; items for this gateway and epoch go to `receiver`.
    pub(crate) fn join(exchange: Arc<FaultyExchange>, own: Destination, receiver: Receiver) -> Self {
        let disturbances = Disturbances::default();
        let known = (own.epoch, receiver, disturbances.clone());
        exchange.state.lock().gateways.insert(own.gateway.clone(), known);
        Self { exchange, own, disturbances }
    }

    /// What was lost on the way here, a while later.
    pub(super) const fn disturbances(&self) -> &Disturbances {
        &self.disturbances
    }

    /// Returns how many were dropped here: none.
    pub(super) fn publish_all(&self, items: Vec<(Destination, BusItem)>) -> usize {
        for (to, item) in items {
            self.publish(&to, &item);
        }
        0
    }

    fn publish(&self, to: &Destination, item: &BusItem) {
        let mut state = self.exchange.state.lock();
        let known = state.gateways.get(&to.gateway).cloned();
        let known = known.filter(|(epoch, ..)| to.epoch.0 == 0 || to.epoch == *epoch);
        let Some((_, receiver, disturbances)) = known else { return };
        let faults = state.faults;
        if fastrand::f64() < faults.lost {
            let since = unix_ms();
            if faults.silent {
                return;
            }
            tokio::spawn(async move {
                sleep(Duration::from_millis(fastrand::u64(500..5_000))).await;
                disturbances.report(Cause::Hole, since);
            });
            return;
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
    }
}
