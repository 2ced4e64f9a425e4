//! The life of the process, from bound to gone.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::build::{Assembled, Gateway};
use super::{GatewayError, retention, wheel};
use crate::admin;
use crate::hub::{Ending, Hub};
use crate::net;
use crate::pipeline::Pipeline;
use crate::redis::Lease;
use crate::session;
use crate::task::spawn_core;
use crate::types::{CloseReason, Phase};

/// How long connections have to end once they were asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long routes and the lease may take to be given back.
const GIVE_BACK: Duration = Duration::from_secs(3);

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// Another process took its lease.
    Superseded,
    /// A task it lives by ended; the log says which.
    Failed,
}

impl Gateway {
    /// Runs until a signal or until another process takes the lease.
    pub async fn run(mut self) -> Result<Exit, GatewayError> {
        let mut signals =
            Signals::install().map_err(|error| GatewayError::Setup(format!("signals: {error}")))?;
        let (listen, admin_address) = self.addresses();
        let router = admin::router(Arc::clone(&self.admin));
        if let Some(listener) = self.admin_listener.take() {
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    error!(%error, "admin listener ended");
                }
            });
        }
        self.data.announce(listen, admin_address)?;
        info!(gateway = %self.data.own.id, epoch = %self.data.own.epoch, %listen, admin = %admin_address, "starting");
        let assembled = tokio::select! {
            assembled = self.assemble() => match assembled {
                Ok(assembled) => assembled,
                Err(error) => {
                    self.data.withdraw();
                    return Err(error);
                }
            },
            () = signals.first() => {
                info!("ended before it was ready");
                self.data.withdraw();
                return Ok(Exit::Stopped);
            }
        };
        self.serve(assembled, &mut signals).await
    }

    async fn serve(self, assembled: Assembled, signals: &mut Signals) -> Result<Exit, GatewayError> {
        let Assembled { context, arrivals, rhythm, membership } = assembled;
        let Self { config, data, listener, admin, hub, phase, stop, keys, .. } = self;
        let pipeline = Arc::clone(&context.pipeline);
        let listener = listener.listen().map_err(|source| GatewayError::Listen {
            address: config.listen,
            role: "websocket",
            source,
        })?;
        spawn_core(
            "wheel",
            &stop,
            wheel::turn(Arc::clone(&pipeline), arrivals, rhythm, admin.recorder.clone()),
        );
        let keeping = retention::keep(Arc::clone(pipeline.ports()), (&config.retention).into());
        spawn_core("retention", &stop, keeping);
        let most = config.limits.max_connections.min(descriptors()).min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        let parting = Parting { hub: Arc::clone(&hub), permits: Arc::clone(&permits), most };
        let accepting = context.stopping.clone();
        // The wheel turns as long as somebody may hand it connections.
        let kept_context = Arc::clone(&context);
        let accept =
            tokio::spawn(net::accept(listener, permits, accepting.clone(), move |stream, peer, permit| {
                tokio::spawn(session::establish(Arc::clone(&context), stream, peer, permit));
            }));
        let leaving = stop.child_token();
        let kept = membership.map(|(membership, node)| tokio::spawn(membership.keep(node, leaving.clone())));
        phase.send_replace(Phase::Running);
        info!(redis = config.redis.is_some(), "ready");
        let superseded = async {
            match kept {
                // Without the task the lease runs out unseen.
                Some(kept) => kept.await.ok().flatten(),
                None => std::future::pending().await,
            }
        };
        let exit = tokio::select! {
            () = signals.first() => Exit::Stopped,
            holder = superseded => if holder.is_some() { Exit::Superseded } else { Exit::Failed },
            () = stop.cancelled() => Exit::Failed,
        };
        // Accepting ends first, in both cases.
        accepting.cancel();
        let _ = accept.await;
        match exit {
            Exit::Stopped | Exit::Failed => {
                phase.send_replace(Phase::Draining);
                info!(connections = hub.connections(), "stopping");
                tokio::select! {
                    () = parting.part(CloseReason::Shutdown) => {}
                    () = signals.first() => warn!("asked again: ending now"),
                }
                leaving.cancel();
                let lease = admin
                    .redis
                    .as_ref()
                    .map(|client| Lease::new(client.clone(), keys, data.own.id.clone(), data.own.epoch));
                if timeout(GIVE_BACK, give_back(&pipeline, lease)).await.is_err() {
                    warn!("redis did not take routes and lease back in time; they run out by themselves");
                }
            }
            Exit::Superseded => {
                phase.send_replace(Phase::Superseded);
                // Routes and lease are the other's now.
                parting.part(CloseReason::Superseded).await;
            }
        }
        stop.cancel();
        drop(kept_context);
        data.withdraw();
        info!(?exit, "ended");
        Ok(exit)
    }
}

/// Connections that leave the process the descriptors it needs itself, so
/// that the one too many gets 503 and probes are still answered.
fn descriptors() -> usize {
    const OWN: u64 = 64;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft.saturating_sub(OWN).max(1)).unwrap_or(usize::MAX)
}

/// The end of all connections.
struct Parting {
    hub: Arc<Hub>,
    /// Held by every socket from its accept to its last byte.
    permits: Arc<Semaphore>,
    most: usize,
}

impl Parting {
    /// Asks every connection to end, also those that only now become one, and
    /// waits, briefly, until every socket is closed.
    async fn part(&self, reason: CloseReason) {
        let gone = async {
            while self.permits.available_permits() < self.most {
                for peer in self.hub.all() {
                    peer.outbox.end(Ending::of(reason));
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(FAREWELL, gone).await.is_err() {
            warn!(connections = self.hub.connections(), "connections cut off");
        }
    }
}

async fn give_back(pipeline: &Pipeline, lease: Option<Lease>) {
    // What was stored is delivered; then nobody is here any more.
    pipeline.drained().await;
    pipeline.departed().await;
    if let Some(lease) = lease {
        // A failure leaves it to run out.
        let _ = lease.release().await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next request to end.
    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
