//! The product's verbs: send, deliver, acknowledge, relay, attach, resume,
//! kick, pull, change members, look back.
//!
//! The only place that sees messages, the hub and the three ports together.
//! Order of work for a send: validate → dedup + seq + append → ack the sender
//! → look up the receivers → deliver. Every queue is bounded, every wait has a
//! deadline, and a full queue is answered, never waited for.
//!
//! Called by `session` and `admin` (going in), by the bus (going out, through
//! [`Inbox`]) and by `gateway`, which starts its tasks.

mod acknowledge;
mod attach;
mod deliver;
mod history;
mod inbox;
mod kick;
mod lane;
mod members;
mod membership;
mod pull;
mod refresh;
mod relay;
mod resume;
mod send;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use acknowledge::Report;
pub(crate) use deliver::{Outgoing, Reached};
pub(crate) use inbox::Inbox;
pub(crate) use kick::KickRequest;
pub(crate) use pull::Pull;
pub(crate) use relay::{Relay, RelayTo};
pub(crate) use send::{Origin, SendOutcome, SendRequest, failed};

use crate::bus::Bus;
use crate::hub::{Hub, Peer};
use crate::message::IdSource;
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
    /// The way to other gateways.
    pub bus: Bus,
    /// The log.
    pub store: Store,
    /// Message ids.
    pub ids: Mutex<IdSource>,
    /// Longest a send waits for the store.
    pub send_wait: Duration,
    /// Members of a group up to which all are told what happens to one.
    pub receipt_members: u64,
}

/// The verbs, as queues to the tasks that do them.
#[derive(Debug)]
pub(crate) struct Pipeline {
    ports: Arc<Ports>,
    lanes: Vec<mpsc::Sender<send::Work>>,
    /// Bytes that sends waiting for the store may hold.
    send_room: Arc<Semaphore>,
    relays: mpsc::Sender<Relay>,
    reports: mpsc::Sender<Report>,
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
        let (refreshes, departures) = refresh::start(&ports, stop);
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
