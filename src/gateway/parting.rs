//! The end of all connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::hub::{Ending, Frame, Hub, Peer};
use crate::telemetry::{FrameKind, metrics};
use crate::types::CloseReason;
use crate::wire::pb::{GoAway, GoAwayReason};
use crate::wire::{Payload, encode, reply};

/// How long the last connections have to end once they were asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections per second that are asked to leave at least: fewer are all
/// asked at once.
const LEAST_RATE: usize = 2_000;
/// Reconnects per second that are aimed at, wherever they go.
const RETURN_RATE: usize = 2_000;
/// Longest a client is told to wait.
const LONGEST_WAIT_MS: usize = 30_000;
const STEP: Duration = Duration::from_millis(20);

pub(super) struct Parting {
    pub(super) hub: Arc<Hub>,
    /// Held by every socket from its accept to its last byte.
    pub(super) permits: Arc<Semaphore>,
    pub(super) most: usize,
}

impl Parting {
    /// Asks every connection to leave, spread over `within`, then all that
    /// only now become one, and waits, briefly, until every socket is closed.
    pub(super) async fn part(&self, reason: CloseReason, within: Duration) {
        let all = self.hub.all();
        // The last fifth of the time is for the last ones to go.
        let steps = (within.mul_f64(0.8).as_millis() / STEP.as_millis()).max(1);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        let least = LEAST_RATE / 50;
        for batch in all.chunks(all.len().div_ceil(steps).max(least)) {
            batch.iter().for_each(|peer| send_away(peer, reason, all.len()));
            sleep(STEP).await;
        }
        let gone = async {
            while self.permits.available_permits() < self.most {
                for peer in self.hub.all() {
                    send_away(&peer, reason, all.len());
                }
                sleep(STEP).await;
            }
        };
        if timeout(FAREWELL, gone).await.is_err() {
            warn!(connections = self.hub.connections(), "connections cut off");
        }
    }

    /// Waits, briefly, until this many more sockets could be had: the others
    /// have ended.
    pub(super) async fn ended(&self, free: usize) {
        let gone = async {
            while self.permits.available_permits() < free {
                sleep(STEP).await;
            }
        };
        let _ = timeout(FAREWELL, gone).await;
    }
}

/// Tells a client to connect again, each after a time of its own, and ends its
/// connection; once.
pub(super) fn send_away(peer: &Peer, reason: CloseReason, of: usize) {
    if peer.outbox.is_ending() {
        return;
    }
    let spread = (of.saturating_mul(1_000) / RETURN_RATE).clamp(1_000, LONGEST_WAIT_MS);
    let go_away = GoAway {
        reason: GoAwayReason::Drain.into(),
        reconnect_after_ms: fastrand::u32(0..u32::try_from(spread).unwrap_or(u32::MAX)),
        endpoints: Vec::new(),
    };
    peer.answer(Frame::control(encode(&reply("", Payload::GoAway(go_away))), FrameKind::Other));
    if peer.outbox.end(Ending::of(reason)) {
        metrics().drained.increment(1);
    }
}
