//! How a gateway ends: it stops, or another process goes on with what it had.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info, warn};

use super::GatewayError;
use super::parting::send_away;
use super::run::Serving;
use super::signals::Signals;
use crate::handover::Committed;
use crate::pipeline::Pipeline;
use crate::redis::Lease;
use crate::types::{CloseReason, Phase};

/// How long routes and the lease may take to be given back.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// How long writing down who came may take.
const FLUSH: Duration = Duration::from_secs(2);
/// How long the last calls of operators may take to be answered.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// Another process took its lease.
    Superseded,
    /// A task it lives by ended; the log says which.
    Failed,
    /// Another process goes on with everything.
    HandedOver,
}

/// Why a gateway serves no more.
pub(super) enum End {
    Stopped,
    Drained(Option<Duration>),
    Superseded,
    Failed,
    HandedOver(Box<Committed>),
}

impl Serving {
    pub(super) async fn finish(mut self, end: End, signals: &mut Signals) -> Result<Exit, GatewayError> {
        // Accepting ends first, in all cases.
        self.clients.close().await;
        self.context.stopping.cancel();
        let pipeline = Arc::clone(&self.context.pipeline);
        let exit = match end {
            End::HandedOver(committed) => return Ok(self.leave(&committed, &pipeline).await),
            End::Superseded => {
                self.phase.send_replace(Phase::Superseded);
                // Routes and lease are the other's now.
                self.parting.part(CloseReason::Superseded, Duration::ZERO).await;
                Exit::Superseded
            }
            End::Stopped | End::Failed | End::Drained(_) => {
                self.phase.send_replace(Phase::Draining);
                self.supervisor.stopping();
                info!(connections = self.hub.connections(), "stopping");
                let within = if let End::Drained(Some(within)) = end { within } else { self.config.drain };
                tokio::select! {
                    () = self.parting.part(CloseReason::Shutdown, within) => {}
                    () = signals.end() => warn!("asked again: ending now"),
                }
                self.leaving.cancel();
                if let Some(census) = &self.context.census {
                    census.part(FLUSH).await;
                }
                let own = self.data.own.clone();
                let lease = |client: &crate::redis::Client| {
                    Lease::new(client.clone(), self.keys.clone(), own.id.clone(), own.epoch)
                };
                let lease = self.admin.redis.as_ref().map(lease);
                if timeout(GIVE_BACK, give_back(&pipeline, lease)).await.is_err() {
                    warn!("redis did not take routes and lease back in time; they run out by themselves");
                }
                if matches!(end, End::Failed) { Exit::Failed } else { Exit::Stopped }
            }
        };
        self.stop.cancel();
        pipeline.ports().store.close().await;
        self.data.withdraw();
        info!(?exit, "ended");
        Ok(exit)
    }

    /// Another process has it all but for a few connections, which are asked
    /// to come back. Nothing is given back, and no socket that moved is
    /// touched.
    async fn leave(mut self, committed: &Committed, pipeline: &Pipeline) -> Exit {
        self.leaving.cancel();
        for peer in &committed.left {
            pipeline.detach(peer, CloseReason::Shutdown);
            send_away(peer, CloseReason::Shutdown, committed.left.len());
        }
        if committed.is_started {
            self.supervisor.hand_over(committed.report.pid).await;
        } else {
            error!("the new process does not say that it serves");
        }
        self.operators.answered(LAST_CALLS).await;
        let moved = usize::try_from(committed.report.moved).unwrap_or(usize::MAX);
        self.parting.ended(self.parting.most.saturating_sub(moved)).await;
        if timeout(GIVE_BACK, pipeline.departed()).await.is_err() {
            warn!("routes of connections that stayed behind run out by themselves");
        }
        if committed.is_started { Exit::HandedOver } else { Exit::Failed }
    }
}

async fn give_back(pipeline: &Pipeline, lease: Option<Lease>) {
    // What was stored is delivered; then nobody is here any more.
    pipeline.drained().await;
    pipeline.departed().await;
    pipeline.last_pulse().await;
    if let Some(lease) = lease {
        // A failure leaves it to run out.
        let _ = lease.release().await;
    }
}
