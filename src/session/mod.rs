//! One client, from accepted socket to close.
//!
//! [`establish`] runs the handshake in a task of its own, which ends when the
//! client is named, bound and told `Ready`; what remains is a [`Connection`],
//! a hand-written future small enough to have many of, which owns everything:
//! the socket, the unfinished bytes, the position in what is being written.
//! At every point where it sleeps, every byte is in its inbound buffer, its
//! outbox, or the kernel.
//!
//! [`look_at`] judges the signs of life when the timer wheel comes by.
//!
//! Called by `gateway`; calls `ws`, `wire`, `hub`, `pipeline`.

mod bucket;
mod closing;
mod connection;
mod dispatch;
mod establish;
mod farewell;
mod identify;
mod inflow;
mod liveness;
mod outbound;
mod receive;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use connection::Connection;
pub(crate) use establish::establish;
pub(crate) use liveness::{Look, Pace, look_at};

use crate::census::Census;
use crate::config::Limits;
use crate::hub::{Freeze, Peer};
use crate::pipeline::Pipeline;
use crate::types::{ConnId, GatewayId};
use crate::ws::auth::Authenticator;

/// What every connection of this gateway shares.
#[derive(Debug)]
pub(crate) struct Context {
    /// The verbs.
    pub pipeline: Arc<Pipeline>,
    /// Who came, unless presence is off.
    pub census: Option<Arc<Census>>,
    /// Who may in.
    pub authenticator: Arc<Authenticator>,
    /// Bounds.
    pub limits: Limits,
    /// Origins accepted from browsers; empty = any.
    pub origins: Vec<String>,
    /// Heartbeat interval told to clients.
    pub heartbeat: Duration,
    /// This gateway.
    pub gateway: GatewayId,
    /// Hands new connections to the timer wheel.
    pub arrivals: mpsc::Sender<Arc<Peer>>,
    /// Pulled when the gateway takes no more clients.
    pub stopping: CancellationToken,
    /// Whether connections are to hold still.
    pub freeze: Arc<Freeze>,
    /// Sockets whose client is not named and bound yet.
    pub establishing: AtomicUsize,
    /// The last connection id given.
    pub last_conn: AtomicU64,
}

impl Context {
    fn next_conn(&self) -> ConnId {
        ConnId(self.last_conn.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The next heartbeat of one client: a tenth around the interval, so that
    /// clients do not fall into step.
    fn draw_interval_ms(&self) -> u32 {
        let drawn = self.heartbeat.mul_f64(0.9 + fastrand::f64() * 0.2);
        u32::try_from(drawn.as_millis()).unwrap_or(u32::MAX)
    }
}
