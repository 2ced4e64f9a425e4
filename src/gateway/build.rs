//! From configuration to a gateway that is bound.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::GatewayError;
use super::identity::DataDir;
use crate::admin::AdminContext;
use crate::config::Config;
use crate::handover::{Facts, HandoverError, Inherited, Newcomer, Order, Orders, Program};
use crate::hub::{Hub, OutboxLimits};
use crate::net::Listener;
use crate::pipeline::Inbox;
use crate::redis::{Client, Keys};
use crate::telemetry::{install_metrics, metrics};
use crate::types::{Phase, unix_ms};
use crate::ws::auth::Authenticator;

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
    pub(super) node: Option<u16>,
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
}

/// A listening socket as it is used here, and its address.
fn own(socket: TcpListener) -> std::io::Result<(TcpListener, SocketAddr)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}
