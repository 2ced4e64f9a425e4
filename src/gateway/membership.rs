//! One of many: the lease kept, and routes brought back after an outage.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::message::MAX_NODE;
use crate::pipeline::Ports;
use crate::redis::{Client, Lease, LeaseRecord, Link, NodeLease, Renewal};
use crate::store::Store;
use crate::telemetry::metrics;

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
}

impl Membership {
    /// Keeps the lease and the routes until `stop`; returns early when another
    /// process has taken the lease.
    pub(super) async fn keep(self, node: u16, stop: CancellationToken) -> Option<LeaseRecord> {
        let rebind = Arc::new(Notify::new());
        let binder = tokio::spawn(rebind_on(Arc::clone(&self.ports), Arc::clone(&rebind)));
        let watcher = tokio::spawn(watch(self.client.link(), self.subscribed.clone(), Arc::clone(&rebind)));
        let usurper = stop.run_until_cancelled(self.renew(node, &rebind)).await;
        binder.abort();
        watcher.abort();
        usurper
    }

    async fn renew(mut self, mut node: u16, rebind: &Notify) -> LeaseRecord {
        let mut tick = interval(RENEW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.record.connections = u64::try_from(self.ports.hub.connections()).unwrap_or(u64::MAX);
            match self.lease.renew(&self.record).await {
                Ok(Renewal::Renewed) => {}
                Ok(Renewal::Retaken) => {
                    metrics().lease_lost.increment(1);
                    warn!("lease was gone and is taken again; binding every route anew");
                    rebind.notify_one();
                }
                Ok(Renewal::Lost(holder)) => {
                    error!(?holder, "another process holds the lease of this gateway id");
                    return *holder;
                }
                Err(error) => warn!(%error, "lease not renewed"),
            }
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

/// Asks for a re-bind whenever the connection or the subscription is another
/// one than before: what happened in between is unknown.
async fn watch(mut link: watch::Receiver<Link>, mut subscribed: watch::Receiver<u64>, rebind: Arc<Notify>) {
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
            rebind.notify_one();
        }
    }
}

async fn rebind_on(ports: Arc<Ports>, rebind: Arc<Notify>) {
    loop {
        rebind.notified().await;
        if let Store::Redis(store) = &ports.store {
            store.forget_touches();
        }
        ports.rebind_all().await;
    }
}
