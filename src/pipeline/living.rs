//! Which gateways hold their lease: the interest of one that does not is taken
//! back, and given back where it has returned meanwhile.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use super::Ports;
use crate::telemetry::metrics;
use crate::types::{ConversationId, GatewayRef, monotonic_ms};

/// How long it is believed which gateways hold their lease.
const BELIEVED_MS: u64 = 2_000;

/// The gateways that held their lease a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Living {
    gateways: HashSet<GatewayRef>,
    at: u64,
}

impl Living {
    fn has_all(&self, gateways: &[GatewayRef], now_ms: u64) -> bool {
        let fresh = now_ms.saturating_sub(self.at) < BELIEVED_MS;
        fresh && gateways.iter().all(|gateway| self.gateways.contains(gateway))
    }

    fn set(&mut self, gateways: HashSet<GatewayRef>, now_ms: u64) {
        (self.gateways, self.at) = (gateways, now_ms);
    }
}

impl Ports {
    /// Those of the other gateways that hold their lease. The interest of a
    /// dead one is taken back.
    pub(super) async fn alive(&self, group: &ConversationId, gateways: &[GatewayRef]) -> Vec<GatewayRef> {
        let others: Vec<GatewayRef> =
            gateways.iter().filter(|gateway| **gateway != self.own).cloned().collect();
        if others.is_empty() || self.living.lock().has_all(&others, monotonic_ms()) {
            return others;
        }
        // While that is not known everybody is told.
        let Ok(living) = self.routes.gateways().await else { return others };
        let living: HashSet<GatewayRef> = living.into_iter().map(|(gateway, _)| gateway).collect();
        let (mut alive, dead): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|gateway| living.contains(gateway));
        self.living.lock().set(living, monotonic_ms());
        let mut left = Vec::new();
        for gateway in dead {
            if self.store.leave(&gateway, std::slice::from_ref(group)).await.is_ok() {
                metrics().interests_forgotten.increment(1);
                left.push(gateway);
            }
        }
        if !left.is_empty() {
            alive.extend(self.revived(group, left).await);
        }
        alive
    }

    /// Of gateways whose interest was taken back, those that hold their lease
    /// by now: they may have registered it again before it was, and get it back.
    async fn revived(&self, group: &ConversationId, left: Vec<GatewayRef>) -> Vec<GatewayRef> {
        let living = self.routes.gateways().await;
        let is_living = |gateway: &GatewayRef| {
            living.as_ref().map_or(true, |living| living.iter().any(|(known, _)| known == gateway))
        };
        let revived: Vec<_> = left.into_iter().filter(is_living).collect();
        for gateway in &revived {
            // Interest is registered for a member, whoever that is.
            let Ok(Some(page)) = self.store.members(group, None, 1).await else { continue };
            let wanted: Vec<_> = page.members.iter().map(|(user, _)| (group.clone(), *user)).collect();
            if self.store.join(gateway, &wanted).await.is_err() {
                tracing::warn!(%group, gateway = %gateway.id, "interest of a gateway that is back is lost");
            }
        }
        revived
    }
}
