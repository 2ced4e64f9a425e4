//! What all clients of a run share: counts, how far each is, and whether the
//! run goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

/// What clients do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Send new messages.
    Sending,
    /// Only finish what is begun.
    Draining,
    /// Leave.
    Over,
}

/// Shared by the clients of a run.
#[derive(Debug)]
pub(super) struct Shared {
    /// When the run began.
    pub(super) start: Instant,
    /// Where gateways are.
    pub(super) gateways: watch::Receiver<Vec<SocketAddr>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Sends on a connection without an answer.
    pub(super) in_flight: AtomicU64,
    /// Messages without a final answer, sent or not.
    pub(super) unanswered: AtomicU64,
    /// Answered as stored.
    pub(super) acked: AtomicU64,
    /// How often all clients were told to leave and come back.
    pub(super) shakes: AtomicU64,
    /// Clients that are served.
    pub(super) served: AtomicU64,
    /// Per conversation, how far each of its members is without a hole.
    floors: Vec<Vec<Arc<AtomicI64>>>,
}

impl Shared {
    /// In place of a floor, as long as something is missing or asked for.
    pub(super) const UNDER_WAY: i64 = -1;

    pub(super) fn new(
        gateways: watch::Receiver<Vec<SocketAddr>>,
        phase: watch::Receiver<Phase>,
        floors: Vec<Vec<Arc<AtomicI64>>>,
    ) -> Self {
        Self {
            start: Instant::now(),
            gateways,
            phase,
            in_flight: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            shakes: AtomicU64::new(0),
            served: AtomicU64::new(0),
            floors,
        }
    }

    /// Whether nothing is unanswered, nothing missing that is known of, and all
    /// members of each conversation have come equally far.
    pub(super) fn is_settled(&self) -> bool {
        let level = |members: &Vec<Arc<AtomicI64>>| {
            let mut floors = members.iter().map(|floor| floor.load(Ordering::Relaxed));
            let first = floors.next();
            floors.all(|floor| Some(floor) == first) && first != Some(Self::UNDER_WAY)
        };
        self.unanswered.load(Ordering::Relaxed) == 0 && self.floors.iter().all(level)
    }
}
