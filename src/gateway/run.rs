//! The life of the process: opens the doors, and serves until something ends it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::assemble::Assembled;
use super::build::{Entrance, Gateway};
use super::doors::{AdminDoor, ClientDoor};
use super::ending::{End, Exit};
use super::identity::DataDir;
use super::inheritance::Inheritance;
use super::parting::Parting;
use super::signals::{Asked, Signals};
use super::{GatewayError, retention, wheel};
use crate::admin::{self, AdminContext};
use crate::bus::Cause;
use crate::config::Config;
use crate::handover::{Order, Program, Supervisor, UpgradeOrder};
use crate::hub::Hub;
use crate::redis::{Keys, LeaseRecord};
use crate::session::Context;
use crate::task::spawn_core;
use crate::types::Phase;

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
    pub(super) hub: Arc<Hub>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) stop: CancellationToken,
    pub(super) keys: Keys,
    orders: mpsc::Receiver<Order>,
    pub(super) parting: Parting,
    /// Keeps the lease; its end is another's beginning.
    kept: Option<JoinHandle<Option<LeaseRecord>>>,
    pub(super) leaving: CancellationToken,
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
        if let Some(census) = &context.census {
            // Not before: a process that may yet be refused changes no numbers.
            census.start(&hub, &pipeline.ports().presence, &stop);
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
}

/// Whether another process has the lease: else its keeper has ended, and it
/// would run out unseen.
async fn superseded(kept: &mut Option<JoinHandle<Option<LeaseRecord>>>) -> bool {
    match kept {
        Some(kept) => kept.await.ok().flatten().is_some(),
        None => std::future::pending().await,
    }
}
