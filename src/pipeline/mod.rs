//! The product's verbs: send, deliver, repair, reconcile, acknowledge, relay,
//! attach, resume, kick, pull, look back, change members, pulse, watch.
//!
//! The only place that sees messages, the hub and the four ports together.
//! Order of work for a send: validate → dedup + seq + append → ack the sender
//! → look up the receivers → deliver. Every queue is bounded, every wait has a
//! deadline, and a full queue is answered, never waited for.
//!
//! Called by `session` and `admin` (going in), by the bus (going out, through
//! [`Inbox`]) and by `gateway`, which starts its tasks.

mod acknowledge;
mod attach;
mod deliver;
mod fan_out;
mod group;
mod here;
mod history;
mod in_flight;
mod inbox;
mod insistence;
mod interest;
mod kick;
mod lane;
mod living;
mod members;
mod membership;
mod owed;
mod proof;
mod pull;
mod pulse;
mod reconcile;
mod refresh;
mod relay;
mod repair;
mod resume;
mod send;
mod settle;
mod sight;
#[cfg(test)]
mod simulation;
mod standing;
mod sync;
#[cfg(test)]
mod testbed;
mod watch;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{RwLock, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use acknowledge::Report;
pub(crate) use attach::binding;
pub(crate) use deliver::{Outgoing, Reached};
pub(crate) use inbox::Inbox;
pub(crate) use kick::KickRequest;
pub(crate) use living::Living;
pub(crate) use pull::Pull;
pub(crate) use pulse::Pulse;
pub(crate) use relay::{Relay, RelayTo};
pub(crate) use send::{Origin, SendOutcome, SendRequest, failed};

use crate::bus::Bus;
use crate::config::{self, Groups};
use crate::hub::{Hub, Peer};
use crate::message::IdSource;
use crate::presence::Presence;
use crate::route::Routes;
use crate::store::Store;
use crate::types::GatewayRef;

/// What every verb works on.
#[derive(Debug)]
pub(crate) struct Ports {
    /// This gateway.
    pub own: GatewayRef,
    /// Its connections.
    pub hub: Arc<Hub>,
    /// Where users are.
    pub routes: Routes,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// The way to other gateways.
    pub bus: Bus,
    /// The log.
    pub store: Store,
    /// Message ids.
    pub ids: Mutex<IdSource>,
    /// Longest a send waits for the store.
    pub send_wait: Duration,
    /// When a group is too large or too busy for every copy to be pushed.
    pub groups: Groups,
    /// Who is online, and who may see it.
    pub presence_config: config::Presence,
    /// What is to be said of presence, and who watches.
    pub pulse: Pulse,
    /// Held shared while interest in groups is registered, alone while it is
    /// taken back.
    pub interest: RwLock<()>,
    /// Gateways that hold their lease.
    pub living: Mutex<Living>,
    /// Deliveries whose receivers are still to be looked up.
    pub owed: owed::Owed,
    /// Messages between the store and their delivery.
    in_flight: in_flight::InFlight,
}

/// What the ports are made of.
#[derive(Debug)]
pub(crate) struct Backends {
    /// Where users are.
    pub routes: Routes,
    /// Who is online.
    pub presence: Presence,
    /// The way to other gateways.
    pub bus: Bus,
    /// The log.
    pub store: Store,
}

/// What the configuration says of the verbs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Longest a send waits for the store.
    pub send_wait: Duration,
    /// When a group is too large or too busy for every copy to be pushed.
    pub groups: Groups,
    /// Who is online, and who may see it.
    pub presence: config::Presence,
}

#[cfg(test)]
impl Tuning {
    /// Short waits, and no group is too large.
    pub(crate) const fn for_tests() -> Self {
        let groups = Groups {
            push_members: 20_000,
            push_rate: 100_000,
            pull_spread: Duration::ZERO,
            receipt_members: 200,
        };
        let presence = config::Presence {
            enabled: true,
            window: Duration::from_secs(180),
            grace: Duration::from_secs(5),
            visibility: config::Visibility::Conversation,
            max_watched: 1_000,
        };
        Self { send_wait: Duration::from_millis(150), groups, presence }
    }
}

impl Ports {
    /// For the gateway `own` with these connections; `node` numbers its
    /// messages.
    #[must_use]
    pub(crate) fn new(own: GatewayRef, hub: Arc<Hub>, backends: Backends, node: u16, tuning: Tuning) -> Self {
        let Backends { routes, presence, bus, store } = backends;
        let Tuning { send_wait, groups, presence: presence_config } = tuning;
        let ids = Mutex::new(IdSource::new(node));
        Self {
            own,
            hub,
            routes,
            presence: Arc::new(presence),
            bus,
            store,
            ids,
            send_wait,
            groups,
            presence_config,
            pulse: Pulse::new(presence_config.enabled),
            interest: RwLock::default(),
            living: Mutex::default(),
            owed: owed::Owed::default(),
            in_flight: in_flight::InFlight::default(),
        }
    }
}

/// The verbs, as queues to the tasks that do them.
#[derive(Debug)]
pub(crate) struct Pipeline {
    ports: Arc<Ports>,
    lanes: Vec<mpsc::Sender<send::Work>>,
    /// Bytes that sends waiting for the store may hold.
    send_room: Arc<Semaphore>,
    relays: mpsc::Sender<relay::Work>,
    reports: mpsc::Sender<acknowledge::Work>,
    refreshes: mpsc::Sender<Arc<Peer>>,
    departures: mpsc::Sender<refresh::Departure>,
    pulls: Arc<Semaphore>,
}

impl Pipeline {
    /// Starts the tasks, until `stop`.
    #[must_use]
    pub(crate) fn start(ports: Arc<Ports>, stop: &CancellationToken) -> Arc<Self> {
        let lanes = lane::start(&ports, stop);
        let relays = relay::start(&ports, stop);
        let reports = acknowledge::start(&ports, stop);
        owed::start(&ports, stop);
        reconcile::start(&ports, stop);
        let (refreshes, departures) = refresh::start(&ports, stop);
        repair::start(&ports, stop);
        if ports.presence_config.enabled {
            pulse::start(&ports, stop);
            sight::start(&ports, stop);
        }
        interest::start(&ports, stop);
        let pulls = Arc::new(Semaphore::new(pull::MAX_CONCURRENT));
        let send_room = Arc::new(Semaphore::new(lane::MAX_BYTES));
        Arc::new(Self { ports, lanes, send_room, relays, reports, refreshes, departures, pulls })
    }

    /// What the verbs work on.
    #[must_use]
    pub(crate) fn ports(&self) -> &Arc<Ports> {
        &self.ports
    }
}
