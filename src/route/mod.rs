//! Port: where is this user?
//!
//! `BindRoute`, `QueryRoute` and `UnbindRoute` on two backends, held to one
//! suite (`conformance`). A route lives 120 s and is refreshed by heartbeats.
//!
//! Promises of every backend:
//! - Bind, refresh and re-bind are one atomic step per user: mine → refreshed;
//!   nobody's → set; another's with a smaller `bound` → replaced, and returned
//!   to be kicked; with a larger one → refused.
//! - Unbind is compare-and-delete, fenced by gateway epoch, connection and
//!   `bound`: a late unbind never erases a newer route.
//! - A query names only gateways whose lease holds, newest bind first, and
//!   caches no absence.
//!
//! Called by `pipeline`.

#[cfg(test)]
mod conformance;
mod memory;
mod redis;

use std::time::Duration;

pub(crate) use memory::{MemoryRoutes, MemoryTable};
pub(crate) use redis::RedisRoutes;

use crate::telemetry::{RouteMetrics, metrics};
use crate::types::{ConnId, DeviceId, GatewayRef, UserId};

/// Life of a route that is not refreshed.
pub(crate) const ROUTE_TTL: Duration = Duration::from_secs(120);

/// The backend failed; whether the step was done is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RouteError {
    /// Redis gave no answer, or a wrong one.
    #[error(transparent)]
    Redis(#[from] crate::redis::RedisError),
}

/// One device's claim to a route.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The connection.
    pub conn: ConnId,
    /// The store's time of the first bind, µs; 0 = it is not bound yet.
    pub bound: u64,
    /// Where `bound` is 0: for how long it has been connected, µs; 0 = it is
    /// the newest there is. A bind that is paid late must not beat a
    /// connection that came after it.
    pub age: u64,
}

/// A connection somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Where.
    pub gateway: GatewayRef,
    /// Which.
    pub conn: ConnId,
}

/// What became of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bound {
    /// It holds, since `bound`.
    Held {
        /// The store's time of the first bind, µs.
        bound: u64,
        /// The holder it replaced, to be kicked.
        replaced: Option<Seat>,
    },
    /// The device was bound later elsewhere: this connection is replaced.
    Refused,
    /// The user's entry cannot be used; logged, and not worth a retry.
    Broken,
}

/// What became of a binding that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// It was not ours any more.
    NotOurs,
    /// The user has other devices.
    Removed,
    /// It was the user's last device.
    Last {
        /// The store's time, µs.
        at: u64,
    },
}

/// One device of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRoute {
    /// The device.
    pub device: DeviceId,
    /// Where its connection is.
    pub seat: Seat,
    /// The store's time of its first bind, µs.
    pub bound: u64,
}

/// Where a user is reachable: devices, newest bind first; empty = nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Live devices.
    pub devices: Vec<DeviceRoute>,
}

impl Route {
    /// Every gateway with a device, each once.
    #[must_use]
    pub(crate) fn gateways(&self) -> Vec<&GatewayRef> {
        let mut gateways: Vec<&GatewayRef> = Vec::new();
        for device in &self.devices {
            if !gateways.contains(&&device.seat.gateway) {
                gateways.push(&device.seat.gateway);
            }
        }
        gateways
    }
}

/// The backends.
#[derive(Debug)]
pub(crate) enum Routes {
    /// In this process.
    Memory(MemoryRoutes),
    /// In Redis.
    Redis(RedisRoutes),
}

impl Routes {
    /// `BindRoute`: binds, refreshes or re-binds; one outcome per binding, in
    /// order. Bindings of one user cost one command when they are neighbours.
    pub(crate) async fn bind(&self, bindings: &[Binding], refresh: bool) -> Result<Vec<Bound>, RouteError> {
        let kind = if refresh { &metrics().route_refresh } else { &metrics().route_bind };
        let outcome = observed(kind, async {
            match self {
                Self::Memory(routes) => Ok(routes.bind(bindings)),
                Self::Redis(routes) => routes.bind(bindings).await,
            }
        })
        .await?;
        for bound in &outcome {
            match bound {
                Bound::Held { .. } => &kind.ok,
                Bound::Refused => &kind.refused,
                Bound::Broken => &kind.error,
            }
            .increment(1);
        }
        Ok(outcome)
    }

    /// `UnbindRoute`: removes what is still exactly ours; one outcome per
    /// binding.
    pub(crate) async fn unbind(&self, bindings: &[Binding]) -> Result<Vec<Unbound>, RouteError> {
        let kind = &metrics().route_unbind;
        let outcome = observed(kind, async {
            match self {
                Self::Memory(routes) => Ok(routes.unbind(bindings)),
                Self::Redis(routes) => routes.unbind(bindings).await,
            }
        })
        .await?;
        for unbound in &outcome {
            if *unbound == Unbound::NotOurs { &kind.refused } else { &kind.ok }.increment(1);
        }
        Ok(outcome)
    }

    /// `QueryRoute`: where these users are, in order.
    pub(crate) async fn query(&self, users: &[UserId]) -> Result<Vec<Route>, RouteError> {
        let kind = &metrics().route_query;
        let routes = observed(kind, async {
            match self {
                Self::Memory(routes) => {
                    #[cfg(test)]
                    routes.ask()?;
                    Ok(routes.query(users))
                }
                Self::Redis(routes) => routes.query(users).await,
            }
        })
        .await?;
        kind.ok.increment(u64::try_from(users.len()).unwrap_or(u64::MAX));
        Ok(routes)
    }

    /// Gateways with a live lease, this one included.
    pub(crate) async fn gateways(&self) -> Result<Vec<(GatewayRef, u64)>, RouteError> {
        match self {
            Self::Memory(routes) => Ok(routes.gateways()),
            Self::Redis(routes) => routes.gateways().await,
        }
    }
}

async fn observed<T>(
    kind: &RouteMetrics,
    step: impl Future<Output = Result<T, RouteError>>,
) -> Result<T, RouteError> {
    let started = std::time::Instant::now();
    let outcome = step.await;
    kind.seconds.record(started.elapsed());
    if outcome.is_err() {
        kind.error.increment(1);
    }
    outcome
}
