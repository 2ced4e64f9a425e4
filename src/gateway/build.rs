//! From configuration to a gateway that is bound and about to run.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{RwLock, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::GatewayError;
use super::identity::DataDir;
use super::membership::Membership;
use super::run::descriptors;
use crate::admin::AdminContext;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange, Receiver, RedisBus};
use crate::census::{Census, Geo, Terms};
use crate::config::{self, Config};
use crate::handover::{Facts, HandoverError, Inherited, Newcomer, Order, Orders, Program};
use crate::hub::{Hub, OutboxLimits};
use crate::message::MAX_NODE;
use crate::net::Listener;
use crate::pipeline::{Backends, Inbox, Pipeline, Ports, Tuning};
use crate::presence::{Presence, RedisPresence, Rules};
use crate::redis::{Client, Keys, Lease, LeaseRecord, NodeLease};
use crate::route::{MemoryRoutes, MemoryTable, ROUTE_TTL, RedisRoutes, Routes};
use crate::session::{Context, Pace};
use crate::store::ledger::Ledger;
use crate::store::{Counting, EmbeddedStore, Left, RedisLedger, RedisStore, Store};
use crate::task::spawn_core;
use crate::telemetry::{install_metrics, metrics};
use crate::types::{Phase, unix_ms};
use crate::ws::auth::Authenticator;

/// New connections waiting for the wheel.
const ARRIVALS: usize = 4_096;
/// Until others know that somebody is back who came at the end of his grace.
const SAID_WITHIN: Duration = Duration::from_millis(1_500);

/// A gateway that has its sockets bound and its identity drawn.
#[derive(Debug)]
pub struct Gateway {
    pub(super) config: Config,
    pub(super) data: DataDir,
    pub(super) listener: Entrance,
    pub(super) admin_listener: TcpListener,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Of a gateway that takes over: the other process, until it has.
    pub(super) newcomer: Option<Newcomer>,
    /// The node number it takes over.
    node: Option<u16>,
    /// How this process was started.
    pub(super) program: Program,
    pub(super) admin: Arc<AdminContext>,
    pub(super) hub: Arc<Hub>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) authenticator: Arc<Authenticator>,
    /// Ends the background tasks.
    pub(super) stop: CancellationToken,
    pub(super) keys: Keys,
}

/// The client's listener.
#[derive(Debug)]
pub(super) enum Entrance {
    /// Bound: a connect is refused.
    Bound(Listener),
    /// Listening already, with clients waiting perhaps.
    Listening(TcpListener),
}

/// What a gateway has once it is one of its kind.
pub(super) struct Assembled {
    pub(super) context: Arc<Context>,
    pub(super) arrivals: mpsc::Receiver<Arc<crate::hub::Peer>>,
    pub(super) pace: Pace,
    pub(super) membership: Option<(Membership, u16)>,
    /// One per socket, and how many there are.
    pub(super) permits: Arc<Semaphore>,
    pub(super) most: usize,
}

impl Gateway {
    /// Takes the data directory, binds both listeners and starts connecting to
    /// Redis. Must run within a tokio runtime.
    pub fn build(config: Config) -> Result<Self, GatewayError> {
        Self::build_on(config, Vec::new())
    }

    /// The same on sockets that whoever supervises the process has opened: the
    /// clients' and, if there is a second one, the operators'. Who connects
    /// before the gateway is ready waits in their queue.
    pub fn build_on(config: Config, given: Vec<TcpListener>) -> Result<Self, GatewayError> {
        let data = DataDir::open(&config.data_dir, config.gateway_id.as_ref())?;
        let refused = |role, address| move |source| GatewayError::Listen { address, role, source };
        let mut given = given.into_iter();
        let entrance = match given.next() {
            Some(socket) => own(socket).map(|(socket, listen)| (Entrance::Listening(socket), listen)),
            None => Listener::bind(config.listen)
                .and_then(|listener| listener.address().map(|listen| (Entrance::Bound(listener), listen))),
        };
        let entrance = entrance.map_err(refused("websocket", config.listen))?;
        let admin = given.next().map_or_else(|| TcpListener::bind(config.admin), Ok);
        let (admin, _) = admin.and_then(own).map_err(refused("admin", config.admin))?;
        Self::over(config, data, entrance, admin, None)
    }

    /// Takes over from the process that started this one, whose control socket
    /// is the standard input: the same gateway, in the same epoch, on the same
    /// sockets.
    pub async fn take_over(config: Config) -> Result<Self, GatewayError> {
        // That was for the start of the process before this one.
        let config = Config { restored: false, ..config };
        let failed = |error: HandoverError| GatewayError::Setup(format!("handover: {error}"));
        let (newcomer, inherited) = Newcomer::meet(Facts::of(&config)).await.map_err(failed)?;
        let Inherited { own, listener, admin, lock, node } = inherited;
        let data = DataDir::inherit(&config.data_dir, lock, own);
        let listener = TcpListener::from(listener);
        let unusable = |source| GatewayError::Listen { address: config.listen, role: "websocket", source };
        let listen = listener.local_addr().map_err(unusable)?;
        let entrance = (Entrance::Listening(listener), listen);
        Self::over(config, data, entrance, TcpListener::from(admin), Some((newcomer, node)))
    }

    fn over(
        config: Config,
        data: DataDir,
        (listener, listen): (Entrance, SocketAddr),
        admin_listener: TcpListener,
        newcomer: Option<(Newcomer, u16)>,
    ) -> Result<Self, GatewayError> {
        let recorder = install_metrics().map_err(GatewayError::Setup)?;
        // Touched once, so that every metric is there from the first scrape.
        metrics().redis_up.set(if config.redis.is_some() { 0.0 } else { 1.0 });
        let authenticator =
            Authenticator::new(&config.auth).map_err(|error| GatewayError::Setup(error.to_string()))?;
        let admin_address = admin_listener.local_addr().map_err(|source| GatewayError::Listen {
            address: config.admin,
            role: "admin",
            source,
        })?;
        let (newcomer, node) = newcomer.unzip();
        let (orders_in, orders) = Orders::channel();
        let stop = CancellationToken::new();
        let redis = config
            .redis
            .as_ref()
            .map(|redis| Client::start(redis, config.durability, config.restored, stop.clone()))
            .transpose()?;
        let hub = Arc::new(Hub::new(OutboxLimits {
            bytes: u32::try_from(config.limits.outbox_bytes).unwrap_or(u32::MAX),
            frames: u32::try_from(config.limits.outbox_frames).unwrap_or(u32::MAX),
        }));
        let phase = watch::Sender::new(Phase::Starting);
        let admin = Arc::new(AdminContext {
            own: data.own.clone(),
            phase: phase.subscribe(),
            pipeline: OnceLock::new(),
            census: OnceLock::new(),
            inbox: Inbox::new(Arc::clone(&hub)),
            redis,
            recorder,
            api_key: config.admin_api_key.clone(),
            started: Instant::now(),
            started_at: unix_ms(),
            listen,
            admin: admin_address,
            leased: Arc::new(AtomicBool::new(config.redis.is_none() || newcomer.is_some())),
            orders: orders_in,
            quiet: RwLock::new(false),
        });
        let keys = Keys::new(config.redis.as_ref().map_or("", |redis| &redis.prefix));
        Ok(Self {
            config,
            data,
            listener,
            admin_listener,
            orders,
            newcomer,
            node,
            program: Program::current(),
            admin,
            hub,
            phase,
            authenticator: Arc::new(authenticator),
            stop,
            keys,
        })
    }

    /// The WebSocket and the admin address.
    #[must_use]
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.admin.listen, self.admin.admin)
    }

    /// Waits for the lease and the subscription where there is Redis, and
    /// starts the pipeline.
    pub(super) async fn assemble(&self) -> Result<Assembled, GatewayError> {
        let inbox = Arc::clone(&self.admin.inbox);
        let receiver: Receiver = Arc::new(move |source, item| inbox.receive(source, item));
        let (ports, ledger, membership) = match &self.admin.redis {
            Some(client) => {
                let (ports, joined, node) = self.join(client, receiver).await?;
                (ports, Ledger::Redis(self.ledger(client)), Some((joined, node)))
            }
            None => {
                let (ports, store) = self.alone(receiver).await?;
                (ports, Ledger::Embedded(store), None)
            }
        };
        let ports = Arc::new(ports);
        let census = if self.config.presence.enabled {
            #[cfg(feature = "postgres")]
            self.copy_out(&ledger);
            let census = self.census(ledger).await?;
            census.start(&self.hub, &ports.presence, &self.stop);
            let _ = self.admin.census.set(Arc::clone(&census));
            Some(census)
        } else {
            None
        };
        if self.node.is_some() {
            // The other process speaks until it has handed over.
            ports.pulse.hold();
        }
        let pipeline = Pipeline::start(Arc::clone(&ports), &self.stop);
        self.admin.inbox.open(&ports, &self.stop);
        let _ = self.admin.pipeline.set(Arc::clone(&pipeline));
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS);
        let context = Arc::new(Context {
            pipeline,
            census,
            authenticator: Arc::clone(&self.authenticator),
            limits: self.config.limits.clone(),
            origins: self.config.origins.clone(),
            heartbeat: self.config.heartbeat,
            gateway: self.data.own.id.clone(),
            arrivals: arrivals_in,
            stopping: self.stop.child_token(),
            freeze: Arc::default(),
            establishing: AtomicUsize::new(0),
            last_conn: AtomicU64::new(0),
        });
        let pace = Pace {
            heartbeat: self.config.heartbeat,
            route_refresh: self.config.route_refresh,
            message: self.config.limits.message,
            pulse: pulse(self.config.presence.window),
        };
        let membership = membership.map(|(joined, node)| (joined.into_membership(ports), node));
        let most = self.config.limits.max_connections.min(descriptors()).min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        Ok(Assembled { context, arrivals, pace, membership, permits, most })
    }

    fn ledger(&self, client: &Client) -> RedisLedger {
        let counting = if self.config.analytics.exact { Counting::Exact } else { Counting::Estimated };
        let keep_s = i64::try_from(self.config.analytics.history_age.as_secs()).unwrap_or(i64::MAX);
        RedisLedger::new(client.clone(), self.keys.clone(), counting, keep_s)
    }

    #[cfg(feature = "postgres")]
    fn copy_out(&self, ledger: &Ledger) {
        if let Some(config) = self.config.analytics.postgres.clone() {
            let zone = self.config.analytics.zone.clone();
            crate::sink::Postgres::new(config, ledger.clone(), zone).start(&self.stop);
        }
    }

    async fn census(&self, ledger: Ledger) -> Result<Arc<Census>, GatewayError> {
        let config = &self.config.analytics;
        let ms = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let terms = Terms {
            zone: config.zone.clone(),
            log_age: ms(config.log_age),
            log_count: config.log_count,
            history_age: ms(config.history_age),
            every: ms(config.sample_every),
            window: self.config.presence.window,
            silence: ms(self.config.heartbeat.saturating_mul(3)),
        };
        let geo = match config.geo_database.clone() {
            None => None,
            Some(path) => {
                let opened = tokio::task::spawn_blocking(move || Geo::open(&path)).await;
                let failed = |why: String| GatewayError::Setup(format!("analytics.geo_database: {why}"));
                let opened = opened.map_err(|error| failed(error.to_string()))?;
                Some(opened.map_err(|error| failed(error.to_string()))?)
            }
        };
        Ok(Census::new(self.data.own.id.as_str(), ledger, terms, geo))
    }

    async fn alone(&self, receiver: Receiver) -> Result<(Ports, EmbeddedStore), GatewayError> {
        let own = self.data.own.clone();
        let destination = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let (data_dir, restored) = (self.config.data_dir.clone(), self.config.restored);
        // Of who takes over, the process before this one has just closed it.
        let left = if self.node.is_some() { Left::Whole } else { Left::Anyhow };
        let opened =
            tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, left, restored)).await;
        let failed = |why| GatewayError::DataDir { dir: self.config.data_dir.display().to_string(), why };
        let (store, ended) = opened
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(format!("the store cannot be opened: {error}")))?;
        spawn_core("store", &self.stop, async move {
            let _ = ended.await;
        });
        let presence = Presence::alone(own.clone(), rules(&self.config));
        let routes = Routes::Memory(MemoryRoutes::new(Arc::new(MemoryTable::new(ROUTE_TTL)), own));
        let bus = Bus::Memory(MemoryBus::join(Arc::new(MemoryExchange::default()), destination, receiver));
        let backends = Backends { routes, presence, bus, store: Store::Embedded(store.clone()) };
        Ok((self.ports(backends, 0), store))
    }

    async fn join(&self, client: &Client, receiver: Receiver) -> Result<(Ports, Joined, u16), GatewayError> {
        // A first ack then says what later ones say, and a Redis that cannot
        // be used ends the start.
        client.settled().await?;
        let own = self.data.own.clone();
        let lease = Lease::new(client.clone(), self.keys.clone(), own.id.clone(), own.epoch);
        let record = LeaseRecord {
            epoch: own.epoch.0,
            listen: self.admin.listen.to_string(),
            admin: self.admin.admin.to_string(),
            pid: std::process::id(),
            connections: 0,
        };
        let node_lease = NodeLease::new(client.clone(), self.keys.clone(), &own.id, own.epoch);
        // Who takes over has both already: they are of the epoch.
        if self.node.is_none() {
            lease.acquire(&record).await?;
        }
        let node = loop {
            if let Some(node) = self.node {
                break node;
            }
            match node_lease.acquire(MAX_NODE).await {
                Ok(Some(node)) => break node,
                Ok(None) => {
                    return Err(GatewayError::Setup("all 1024 node numbers of message ids are taken".into()));
                }
                Err(error) => {
                    warn!(%error, "no node number yet");
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                }
            }
        };
        let destination = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let bus = RedisBus::start(
            client.clone(),
            self.keys.clone(),
            destination,
            receiver,
            self.node.is_some(),
            &self.stop,
        );
        let mut subscribed = bus.subscribed();
        // The bus keeps trying; its end is the process's.
        let _ = subscribed.wait_for(|&generation| generation > 0).await;
        metrics().redis_up.set(1.0);
        let store = Store::Redis(RedisStore::new(client.clone(), self.keys.clone()));
        let presence = RedisPresence::new(client.clone(), &self.keys, own.clone(), rules(&self.config));
        let presence = Presence::Redis(presence);
        let routes = Routes::Redis(RedisRoutes::new(client.clone(), self.keys.clone(), own, ROUTE_TTL));
        let ports = self.ports(Backends { routes, presence, bus: Bus::Redis(bus), store }, node);
        self.admin.leased.store(true, Ordering::Relaxed);
        let leased = Arc::clone(&self.admin.leased);
        let joined = Joined { client: client.clone(), lease, node: node_lease, record, subscribed, leased };
        Ok((ports, joined, node))
    }

    fn ports(&self, backends: Backends, node: u16) -> Ports {
        metrics().ack_level.set(backends.store.level());
        let Config { limits, groups, presence, .. } = &self.config;
        let tuning = Tuning { send_wait: limits.send_wait, groups: *groups, presence: *presence };
        Ports::new(self.data.own.clone(), Arc::clone(&self.hub), backends, node, tuning)
    }
}

/// How often a connection is looked at for heartbeats.
fn pulse(window: Duration) -> Duration {
    (window / 12).clamp(Duration::from_millis(500), Duration::from_secs(10))
}

fn rules(config: &Config) -> Rules {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let config::Presence { window, grace, .. } = config.presence;
    Rules {
        window_ms: ms(window),
        grace_ms: ms(grace + SAID_WITHIN),
        // Everybody is heard of once.
        hold_ms: ms(config.heartbeat + 2 * pulse(window)),
    }
}

/// Membership, before there are ports to keep alive.
struct Joined {
    client: Client,
    lease: Lease,
    node: NodeLease,
    record: LeaseRecord,
    subscribed: watch::Receiver<u64>,
    leased: Arc<AtomicBool>,
}

impl Joined {
    fn into_membership(self, ports: Arc<Ports>) -> Membership {
        let Self { client, lease, node, record, subscribed, leased } = self;
        Membership { ports, client, lease, node, record, subscribed, leased, owed: None }
    }
}

/// A listening socket as it is used here, and its address.
fn own(socket: TcpListener) -> std::io::Result<(TcpListener, SocketAddr)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}
