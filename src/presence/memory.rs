//! Presence in this process: for a gateway that stands alone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{CarriedOnline, Headcount, Look, MOST_GONE, Online, Rules, Step, Stepped, WATCHING};
use crate::types::{GatewayRef, UserId};

/// The set itself; gateways of one process may share it.
#[derive(Debug)]
pub(crate) struct MemoryOnline {
    online: Mutex<Online>,
    /// Who is told of changes, and until when, unix ms.
    watching: Mutex<HashMap<GatewayRef, i64>>,
}

impl MemoryOnline {
    /// Nobody is online.
    #[must_use]
    pub(crate) fn new(rules: Rules) -> Self {
        Self { online: Mutex::new(Online::new(rules)), watching: Mutex::default() }
    }
}

/// One gateway's view of it.
#[derive(Debug)]
pub(crate) struct MemoryPresence {
    shared: Arc<MemoryOnline>,
    gateway: GatewayRef,
}

impl MemoryPresence {
    /// For `gateway`.
    #[must_use]
    pub(crate) const fn new(shared: Arc<MemoryOnline>, gateway: GatewayRef) -> Self {
        Self { shared, gateway }
    }

    pub(super) fn step(&self, now: i64, step: Step<'_>) -> (Stepped, Look) {
        let mut online = self.shared.online.lock();
        let mut watching = self.shared.watching.lock();
        let now_ms = now / 1_000;
        if step.watching {
            let life = i64::try_from(WATCHING.as_millis()).unwrap_or(i64::MAX);
            watching.insert(self.gateway.clone(), now_ms.saturating_add(life));
        }
        watching.retain(|_, until| *until > now_ms);
        let changes = online.step(now, step.heard, step.farewells, MOST_GONE);
        let stepped = Stepped {
            watching: if changes.is_empty() { Vec::new() } else { watching.keys().cloned().collect() },
            changes,
            online: u64::try_from(online.len()).unwrap_or(u64::MAX),
        };
        (stepped, online.look(now, step.look))
    }

    pub(super) fn look(&self, now: i64, users: &[UserId]) -> Look {
        self.shared.online.lock().look(now, users)
    }

    pub(super) fn count(&self, now: i64, window_ms: i64) -> Headcount {
        let as_of = now / 1_000;
        let users = self.shared.online.lock().heard_since(as_of.saturating_sub(window_ms));
        Headcount { users: u64::try_from(users).unwrap_or(u64::MAX), as_of }
    }

    /// As it stands.
    #[must_use]
    pub(crate) fn carry(&self) -> CarriedOnline {
        self.shared.online.lock().carry()
    }

    /// Goes on with what stood in another process.
    pub(crate) fn resume(&self, carried: CarriedOnline) {
        self.shared.online.lock().resume(carried);
    }
}
