//! Routes in this process: for a gateway that stands alone, and the model the
//! other backend is held against.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Binding, Bound, DeviceRoute, Route, Seat, Unbound};
use crate::types::{DeviceId, GatewayRef, UserId, unix_micros};

#[derive(Debug, Clone)]
struct Entry {
    device: DeviceId,
    seat: Seat,
    bound: u64,
    expires: Instant,
}

/// The table itself; gateways of one process may share it.
#[derive(Debug)]
pub(crate) struct MemoryTable {
    ttl: Duration,
    /// A list each: most have one device.
    users: Mutex<HashMap<UserId, Vec<Entry>>>,
    /// Whoever has a view of it.
    gateways: Mutex<Vec<GatewayRef>>,
    /// Queries get no answer.
    #[cfg(test)]
    fails: std::sync::atomic::AtomicBool,
}

impl MemoryTable {
    /// An empty table whose routes live `ttl`.
    #[must_use]
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            users: Mutex::default(),
            gateways: Mutex::default(),
            #[cfg(test)]
            fails: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Whether a gateway holds its lease from now on.
    #[cfg(test)]
    pub(crate) fn set_living(&self, gateway: &GatewayRef, living: bool) {
        let mut gateways = self.gateways.lock();
        gateways.retain(|known| known != gateway);
        gateways.extend(living.then(|| gateway.clone()));
    }

    /// Whether queries get no answer from now on.
    #[cfg(test)]
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, std::sync::atomic::Ordering::Release);
    }
}

/// One gateway's view of the table.
#[derive(Debug)]
pub(crate) struct MemoryRoutes {
    table: Arc<MemoryTable>,
    gateway: GatewayRef,
}

impl MemoryRoutes {
    /// For `gateway`.
    #[must_use]
    pub(crate) fn new(table: Arc<MemoryTable>, gateway: GatewayRef) -> Self {
        table.gateways.lock().push(gateway.clone());
        Self { table, gateway }
    }

    fn seat(&self, binding: &Binding) -> Seat {
        Seat { gateway: self.gateway.clone(), conn: binding.conn }
    }

    pub(super) fn bind(&self, bindings: &[Binding]) -> Vec<Bound> {
        let now = Instant::now();
        let mut users = self.table.users.lock();
        let mut outcomes = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let devices = users.entry(binding.user).or_default();
            let at = devices.iter().position(|entry| entry.device == binding.device);
            let held = at.and_then(|at| devices.get(at)).filter(|entry| entry.expires > now);
            let seat = self.seat(binding);
            let now_us = u64::try_from(unix_micros()).unwrap_or(0);
            let mut bound =
                if binding.bound == 0 { now_us.saturating_sub(binding.age) } else { binding.bound };
            let mut replaced = None;
            match held {
                Some(entry) if entry.seat == seat => bound = entry.bound,
                Some(entry) => {
                    if binding.bound == 0 && binding.age == 0 {
                        bound = bound.max(entry.bound + 1);
                    }
                    if entry.bound >= bound {
                        outcomes.push(Bound::Refused);
                        continue;
                    }
                    replaced = Some(entry.seat.clone());
                }
                None => {}
            }
            if let Some(at) = at {
                devices.swap_remove(at);
            }
            devices.reserve_exact(1);
            devices.push(Entry {
                device: binding.device.clone(),
                seat,
                bound,
                expires: now + self.table.ttl,
            });
            outcomes.push(Bound::Held { bound, replaced });
        }
        outcomes
    }

    pub(super) fn unbind(&self, bindings: &[Binding]) -> Vec<Unbound> {
        let now = Instant::now();
        let mut users = self.table.users.lock();
        let mut remove = |binding: &Binding| {
            let Some(devices) = users.get_mut(&binding.user) else { return Unbound::NotOurs };
            let ours = |entry: &Entry| {
                entry.device == binding.device
                    && entry.seat == self.seat(binding)
                    && (binding.bound == 0 || entry.bound == binding.bound)
            };
            let Some(at) = devices.iter().position(ours) else { return Unbound::NotOurs };
            devices.swap_remove(at);
            devices.retain(|entry| entry.expires > now);
            if !devices.is_empty() {
                return Unbound::Removed;
            }
            users.remove(&binding.user);
            Unbound::Last { at: u64::try_from(unix_micros()).unwrap_or(0) }
        };
        bindings.iter().map(&mut remove).collect()
    }

    /// Whether a query gets an answer.
    #[cfg(test)]
    pub(super) fn ask(&self) -> Result<(), super::RouteError> {
        let fails = self.table.fails.load(std::sync::atomic::Ordering::Acquire);
        if fails { Err(crate::redis::RedisError::Down.into()) } else { Ok(()) }
    }

    pub(super) fn query(&self, wanted: &[UserId]) -> Vec<Route> {
        let now = Instant::now();
        let users = self.table.users.lock();
        let route = |user: &UserId| {
            let live = users.get(user).into_iter().flatten().filter(|entry| entry.expires > now);
            let device = |entry: &Entry| DeviceRoute {
                device: entry.device.clone(),
                seat: entry.seat.clone(),
                bound: entry.bound,
            };
            let mut devices: Vec<_> = live.map(device).collect();
            devices.sort_by_key(|device| std::cmp::Reverse(device.bound));
            Route { devices }
        };
        wanted.iter().map(route).collect()
    }

    pub(super) fn gateways(&self) -> Vec<(GatewayRef, u64)> {
        self.table.gateways.lock().iter().map(|gateway| (gateway.clone(), 0)).collect()
    }
}
