//! The verbs *refresh*, *re-bind* and *depart*: routes kept alive, brought
//! back after an outage, and removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::attach::binding;
use super::{Pipeline, Ports};
use crate::hub::Peer;
use crate::route::{Binding, Bound};
use crate::task::spawn_core;
use crate::telemetry::metrics;
use crate::types::monotonic_ms;

/// Most connections waiting for their refresh; one left out is found again by
/// the wheel.
const QUEUE: usize = 16_384;
/// Most departures waiting; one left out dies by its TTL.
const DEPARTURES: usize = 65_536;
const BATCH: usize = 256;
/// Refreshes gather this long, so that they share a round trip.
const GATHER: Duration = Duration::from_millis(50);
/// Pause after a failed batch.
const RETRY: Duration = Duration::from_millis(500);
/// Re-binds per second after an outage.
const REBIND_RATE: usize = 10_000;
const REBIND_BATCH: usize = 200;

/// A route to be removed, or a mark behind which somebody waits.
#[derive(Debug)]
pub(super) enum Departure {
    Of(Arc<Peer>),
    Barrier(oneshot::Sender<()>),
}

impl Pipeline {
    /// Queues a route refresh, or a bind that is still owed.
    pub(crate) fn refresh(&self, peer: &Arc<Peer>) {
        peer.set_refreshed(monotonic_ms());
        let _ = self.refreshes.try_send(Arc::clone(peer));
    }

    /// Queues the removal of a route.
    pub(super) fn depart(&self, peer: &Arc<Peer>) {
        let _ = self.departures.try_send(Departure::Of(Arc::clone(peer)));
    }

    /// Waits until every removal queued so far was tried.
    pub(crate) async fn departed(&self) {
        let (done, all) = oneshot::channel();
        if self.departures.send(Departure::Barrier(done)).await.is_ok() {
            let _ = all.await;
        }
    }
}

pub(super) fn start(
    ports: &Arc<Ports>,
    stop: &CancellationToken,
) -> (mpsc::Sender<Arc<Peer>>, mpsc::Sender<Departure>) {
    let (refreshes, refresh_queue) = mpsc::channel(QUEUE);
    let (departures, departure_queue) = mpsc::channel(DEPARTURES);
    spawn_core("refresh", stop, refresh_all(Arc::clone(ports), refresh_queue));
    spawn_core("depart", stop, depart_all(Arc::clone(ports), departure_queue));
    (refreshes, departures)
}

async fn refresh_all(ports: Arc<Ports>, mut queue: mpsc::Receiver<Arc<Peer>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        sleep(GATHER).await;
        while batch.len() < BATCH {
            match queue.try_recv() {
                Ok(peer) => batch.push(peer),
                Err(_) => break,
            }
        }
        while !ports.rebind(&mut batch).await {
            sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
        }
        batch.clear();
    }
}

/// Clean departures come in crowds too: they share round trips, and wait for
/// Redis only so long, since the TTL does the rest.
async fn depart_all(ports: Arc<Ports>, mut queue: mpsc::Receiver<Departure>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut waiting = Vec::new();
        let mut bindings = Vec::with_capacity(batch.len());
        for departure in batch.drain(..) {
            match departure {
                Departure::Of(peer) => bindings.push(binding(&peer)),
                Departure::Barrier(done) => waiting.push(done),
            }
        }
        for _ in 0..3 {
            if ports.unbind(&bindings).await {
                break;
            }
            sleep(RETRY).await;
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

impl Ports {
    /// Removes routes; whose last one it was has left. `false` = no answer.
    async fn unbind(&self, bindings: &[Binding]) -> bool {
        let Ok(unbound) = self.routes.unbind(bindings).await else { return false };
        self.note_departed(bindings.iter().map(|binding| binding.user), &unbound);
        true
    }

    /// Binds these connections again, in one round trip; `false` = Redis did
    /// not answer. All connections of a user here go along, so that a user
    /// costs one command.
    async fn rebind(&self, peers: &mut Vec<Arc<Peer>>) -> bool {
        peers.sort_by_key(|peer| peer.identity.user);
        peers.dedup_by_key(|peer| peer.identity.user);
        let now = monotonic_ms();
        let all: Vec<Arc<Peer>> = peers.iter().flat_map(|peer| self.hub.peers(peer.identity.user)).collect();
        if all.is_empty() {
            return true;
        }
        let bindings: Vec<_> = all.iter().map(|peer| binding(peer)).collect();
        let Ok(outcomes) = self.routes.bind(&bindings, true).await else { return false };
        let mut gone = Vec::new();
        for ((peer, binding), outcome) in all.iter().zip(bindings).zip(outcomes) {
            peer.set_refreshed(now);
            self.settle(peer, &outcome);
            // It left meanwhile, and its unbind may have come before this
            // bind: a route to nobody must not stay. Whoever leaves after this
            // look unbinds after this bind.
            if let Bound::Held { bound, .. } = outcome
                && !self.hub.holds(peer)
            {
                gone.push(Binding { bound, ..binding });
            }
        }
        gone.is_empty() || self.unbind(&gone).await
    }

    /// Binds every connection here again, at a paced rate.
    pub(crate) async fn rebind_all(&self) {
        let peers = self.hub.all();
        let total = peers.len();
        for chunk in peers.chunks(REBIND_BATCH) {
            let mut batch = chunk.to_vec();
            while !self.rebind(&mut batch).await {
                sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
            }
            metrics().rebinds.increment(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            let millis = u64::try_from(chunk.len() * 1000 / REBIND_RATE).unwrap_or(0);
            sleep(Duration::from_millis(millis)).await;
        }
        if total > 0 {
            tracing::info!(connections = total, "routes bound again");
        }
    }
}
