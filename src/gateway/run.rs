//! The life of the process, from bound to gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::build::{Assembled, Entrance, Gateway};
use super::doors::{AdminDoor, ClientDoor};
use super::identity::DataDir;
use super::parting::{Parting, send_away};
use super::{GatewayError, retention, wheel};
use crate::admin::{self, AdminContext};
use crate::bus::Cause;
use crate::config::Config;
use crate::handover::{
    Committed, HandoverError, Newcomer, Order, Program, Staged, Supervisor, UpgradeOrder, stage,
};
use crate::hub::Hub;
use crate::pipeline::Pipeline;
use crate::redis::{Keys, Lease, LeaseRecord};
use crate::session::Context;
use crate::task::spawn_core;
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

/// A gateway that serves.
pub(super) struct Serving {
    pub(super) config: Config,
    pub(super) data: DataDir,
    pub(super) admin: Arc<AdminContext>,
    pub(super) context: Arc<Context>,
    pub(super) clients: ClientDoor,
    pub(super) operators: AdminDoor,
    pub(super) program: Program,
    pub(super) supervisor: Supervisor,
    hub: Arc<Hub>,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
    keys: Keys,
    orders: mpsc::Receiver<Order>,
    parting: Parting,
    /// Keeps the lease; its end is another's beginning.
    kept: Option<JoinHandle<Option<LeaseRecord>>>,
    leaving: CancellationToken,
}

/// Why a gateway serves no more.
enum End {
    Stopped,
    Drained(Option<Duration>),
    Superseded,
    Failed,
    HandedOver(Box<Committed>),
}

impl Gateway {
    /// Runs until a signal, an order, or until another process takes the
    /// lease.
    pub async fn run(mut self) -> Result<Exit, GatewayError> {
        let mut signals =
            Signals::install().map_err(|error| GatewayError::Setup(format!("signals: {error}")))?;
        let (listen, admin_address) = self.addresses();
        let operators = self.admin_door()?;
        let newcomer = self.newcomer.take();
        let cold = newcomer.is_none();
        if cold {
            self.data.announce(listen, admin_address)?;
        }
        info!(gateway = %self.data.own.id, epoch = %self.data.own.epoch, %listen, admin = %admin_address, takes_over = !cold, "starting");
        let beginning = async {
            match newcomer {
                None => Ok((self.assemble().await?, None)),
                Some(newcomer) => self.inherit(newcomer).await,
            }
        };
        let (assembled, estate) = tokio::select! {
            biased;
            begun = beginning => match begun {
                Ok(begun) => begun,
                Err(error) => {
                    if cold {
                        self.data.withdraw();
                    }
                    return Err(error);
                }
            },
            () = signals.end() => {
                info!("ended before it was ready");
                if cold {
                    self.data.withdraw();
                }
                return Ok(Exit::Stopped);
            }
        };
        let mut serving = self.begin(assembled, operators, estate).await?;
        let end = serving.until_end(&mut signals).await;
        serving.finish(end, &mut signals).await
    }

    fn admin_door(&self) -> Result<AdminDoor, GatewayError> {
        let failed = |source| GatewayError::Listen { address: self.config.admin, role: "admin", source };
        let socket = self.admin_listener.try_clone().map_err(failed)?;
        let mut operators = AdminDoor::new(socket, admin::router(Arc::clone(&self.admin)));
        if self.newcomer.is_none() {
            operators.open().map_err(failed)?;
        }
        Ok(operators)
    }

    /// Everything of the process before this one, up to its commit.
    async fn inherit(
        &self,
        mut newcomer: Newcomer,
    ) -> Result<(Assembled, Option<Inheritance>), GatewayError> {
        match self.stage(&mut newcomer).await {
            Ok((assembled, staged)) => {
                Ok((assembled, Some(Inheritance { newcomer, staged, at: Instant::now() })))
            }
            Err(error) => {
                newcomer.refuse(&error).await;
                Err(error)
            }
        }
    }

    async fn stage(&self, newcomer: &mut Newcomer) -> Result<(Assembled, Staged), GatewayError> {
        let failed = |error: HandoverError| GatewayError::Setup(format!("handover: {error}"));
        let (assembled, arrived) = if self.config.redis.is_some() {
            let assembled = self.assemble().await?;
            newcomer.ready().await.map_err(failed)?;
            let arrived = newcomer.receive(Some(assembled.context.pipeline.ports())).await.map_err(failed)?;
            (assembled, arrived)
        } else {
            // The files of the store are the other process's until it has sent
            // the state.
            newcomer.ready().await.map_err(failed)?;
            let arrived = newcomer.receive(None).await.map_err(failed)?;
            let since = Instant::now();
            let assembled = self.assemble().await?;
            debug!(took = ?since.elapsed(), "the store is open");
            (assembled, arrived)
        };
        let staged = stage(arrived, &assembled.context, &assembled.permits).await.map_err(failed)?;
        newcomer.staged(staged.connections(), staged.digest).await.map_err(failed)?;
        Ok((assembled, staged))
    }

    /// Opens the doors.
    async fn begin(
        self,
        assembled: Assembled,
        mut operators: AdminDoor,
        inheritance: Option<Inheritance>,
    ) -> Result<Serving, GatewayError> {
        let Assembled { context, arrivals, pace, mut membership, permits, most } = assembled;
        let (listen, admin_address) = self.addresses();
        let Self { config, data, listener, admin, hub, phase, stop, keys, orders, program, .. } = self;
        let failed = |source| GatewayError::Listen { address: config.listen, role: "websocket", source };
        let socket = match listener {
            Entrance::Bound(listener) => listener.listen().map_err(failed)?,
            Entrance::Listening(socket) => socket,
        };
        let pipeline = Arc::clone(&context.pipeline);
        let turning = wheel::turn(Arc::clone(&context), arrivals, pace, admin.recorder.clone());
        spawn_core("wheel", &stop, turning);
        let leaving = stop.child_token();
        let mut clients = ClientDoor::new(socket, Arc::clone(&context), Arc::clone(&permits));
        let is_new = inheritance.is_none();
        if let Some(Inheritance { newcomer, staged, at }) = inheritance {
            if let Some((membership, _)) = membership.as_mut().filter(|_| staged.is_disturbed()) {
                membership.owed = Some(Cause::Resubscribed);
            }
            staged.start(&context).await;
            clients.open().map_err(failed)?;
            newcomer.started(at.elapsed()).await;
            // Before anybody can ask.
            phase.send_replace(Phase::Running);
            operators.open().map_err(failed)?;
            data.announce(listen, admin_address)?;
        } else {
            clients.open().map_err(failed)?;
        }
        let kept = membership.map(|(membership, node)| tokio::spawn(membership.keep(node, leaving.clone())));
        let keeping = retention::keep(Arc::clone(pipeline.ports()), (&config.retention).into());
        spawn_core("retention", &stop, keeping);
        let parting = Parting { hub: Arc::clone(&hub), permits, most };
        phase.send_replace(Phase::Running);
        let supervisor = Supervisor::from_env();
        if is_new {
            // The process before this one says so of one that takes over.
            supervisor.ready();
        }
        info!(redis = config.redis.is_some(), connections = hub.connections(), "ready");
        Ok(Serving {
            config,
            data,
            admin,
            context,
            clients,
            operators,
            program,
            supervisor,
            hub,
            phase,
            stop,
            keys,
            orders,
            parting,
            kept,
            leaving,
        })
    }
}

/// What was taken over and not set off yet.
pub(super) struct Inheritance {
    newcomer: Newcomer,
    staged: Staged,
    at: Instant,
}

impl Serving {
    async fn until_end(&mut self, signals: &mut Signals) -> End {
        loop {
            // All arms are cancel-safe.
            let order = tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::End => return End::Stopped,
                    Asked::Upgrade if !self.admin.orders.begin() => continue,
                    Asked::Upgrade => {
                        let (done, _) = oneshot::channel();
                        Order::Upgrade(UpgradeOrder { binary: None, done })
                    }
                },
                () = self.stop.cancelled() => return End::Failed,
                lost = superseded(&mut self.kept) => {
                    return if lost { End::Superseded } else { End::Failed };
                }
                Some(order) = self.orders.recv() => order,
            };
            match order {
                Order::Drain(drain) => {
                    let _ = drain.begun.send(());
                    return End::Drained(drain.deadline);
                }
                Order::Upgrade(UpgradeOrder { binary, done }) => {
                    let upgraded = self.upgrade(binary.as_deref()).await;
                    self.admin.orders.done();
                    match upgraded {
                        Ok(committed) => {
                            let answer = if committed.is_started {
                                Ok(committed.report.clone())
                            } else {
                                Err("the new process has everything and does not say that it serves"
                                    .to_owned())
                            };
                            // Whoever asked may have gone.
                            let _ = done.send(answer);
                            return End::HandedOver(Box::new(committed));
                        }
                        Err(why) => drop(done.send(Err(why.to_string()))),
                    }
                }
            }
        }
    }

    async fn finish(mut self, end: End, signals: &mut Signals) -> Result<Exit, GatewayError> {
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

/// Whether another process has the lease: else its keeper has ended, and it
/// would run out unseen.
async fn superseded(kept: &mut Option<JoinHandle<Option<LeaseRecord>>>) -> bool {
    match kept {
        Some(kept) => kept.await.ok().flatten().is_some(),
        None => std::future::pending().await,
    }
}

/// Connections that leave the process the descriptors it needs itself, so
/// that the one too many gets 503, probes are still answered, and sockets can
/// be copied for another process.
pub(super) fn descriptors() -> usize {
    const OWN: u64 = 64;
    const COPIES: u64 = 256;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    let kept = OWN + (soft / 16).min(COPIES);
    usize::try_from(soft.saturating_sub(kept).max(1)).unwrap_or(usize::MAX)
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

/// What a signal asks for.
enum Asked {
    End,
    Upgrade,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next request to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The next request, whatever it is.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }
}
