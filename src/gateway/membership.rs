//! One of many: the lease kept, and routes brought back after an outage, then
//! the interest in groups, then what was missed meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::bus::Cause;
use crate::message::MAX_NODE;
use crate::pipeline::Ports;
use crate::redis::{Client, Lease, LeaseRecord, Link, NodeLease, Renewal};
use crate::store::Store;
use crate::telemetry::metrics;
use crate::types::unix_ms;

/// A lease lives five times as long.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// What membership needs to be kept.
pub(super) struct Membership {
    pub(super) ports: Arc<Ports>,
    pub(super) client: Client,
    pub(super) lease: Lease,
    pub(super) node: NodeLease,
    pub(super) record: LeaseRecord,
    pub(super) subscribed: watch::Receiver<u64>,
    /// Whether the lease is known to be held; shown by readiness.
    pub(super) leased: Arc<AtomicBool>,
    /// Something was missed before this began: it begins with binding anew.
    pub(super) owed: Option<Cause>,
}

impl Membership {
    /// Keeps the lease and the routes until `stop`; returns early when another
    /// process has taken the lease.
    pub(super) async fn keep(self, node: u16, stop: CancellationToken) -> Option<LeaseRecord> {
        let rebind = Arc::new(Notify::new());
        let binder = tokio::spawn(rebind_on(Arc::clone(&self.ports), Arc::clone(&rebind)));
        let returned = Arc::new(Notify::new());
        let watcher = tokio::spawn(watch(self.client.link(), self.subscribed.clone(), Arc::clone(&returned)));
        let usurper = stop.run_until_cancelled(self.renew(node, &returned, &rebind)).await;
        binder.abort();
        watcher.abort();
        usurper
    }

    /// Renews in time, and at once when Redis has `returned`. A route counts
    /// only as long as the lease behind it: the lease comes first, then
    /// `rebind`.
    async fn renew(mut self, mut node: u16, returned: &Notify, rebind: &Notify) -> LeaseRecord {
        let mut tick = interval(RENEW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut owed = self.owed.take();
        // When the lease was last known to be held, unix ms.
        let mut held_at = unix_ms();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = returned.notified() => owed = Some(Cause::Resubscribed),
            }
            let now = unix_ms();
            self.record.connections = u64::try_from(self.ports.hub.connections()).unwrap_or(u64::MAX);
            match self.lease.renew(&self.record).await {
                Ok(Renewal::Renewed) => self.leased.store(true, Ordering::Relaxed),
                Ok(Renewal::Retaken) => {
                    metrics().lease_lost.increment(1);
                    warn!("lease was gone and is taken again; binding every route anew");
                    self.leased.store(true, Ordering::Relaxed);
                    owed = Some(Cause::Lease);
                }
                Ok(Renewal::Lost(holder)) => {
                    error!(?holder, "another process holds the lease of this gateway id");
                    return *holder;
                }
                Err(error) => {
                    self.leased.store(false, Ordering::Relaxed);
                    warn!(%error, "lease not renewed");
                    continue;
                }
            }
            if let Some(cause) = owed.take() {
                self.ports.bus.disturbances().hold(cause, held_at);
                rebind.notify_one();
            }
            held_at = now;
            match self.node.renew(node).await {
                Ok(true) => {}
                Ok(false) => {
                    if let Ok(Some(other)) = self.node.acquire(MAX_NODE).await {
                        info!(before = node, now = other, "message ids move to another node number");
                        node = other;
                        self.ports.ids.lock().set_node(node);
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// Tells whenever the connection or the subscription is another
/// one than before: what happened in between is unknown.
async fn watch(mut link: watch::Receiver<Link>, mut subscribed: watch::Receiver<u64>, returned: Arc<Notify>) {
    let generation = |link: &Link| match link {
        Link::Up { generation, .. } => *generation,
        Link::Down => 0,
    };
    let mut known = (generation(&link.borrow_and_update()), *subscribed.borrow_and_update());
    loop {
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            changed = subscribed.changed() => if changed.is_err() { return },
        }
        let now = (generation(&link.borrow_and_update()), *subscribed.borrow_and_update());
        let up = now.0 > 0 && now.1 > 0;
        metrics().redis_up.set(if up { 1.0 } else { 0.0 });
        if up && now != known {
            known = now;
            returned.notify_one();
        }
    }
}

async fn rebind_on(ports: Arc<Ports>, rebind: Arc<Notify>) {
    loop {
        rebind.notified().await;
        // What comes to be held from now on is behind the next binding.
        let held = ports.bus.disturbances().take_held();
        if let Store::Redis(store) = &ports.store {
            store.forget_touches();
        }
        ports.rebind_all().await;
        ports.register_interest().await;
        if let Some(held) = held {
            ports.bus.disturbances().release(held);
        }
    }
}
