//! Connections held still while they move to another process.
//!
//! A connection's task owns its socket and its unfinished bytes, so it is the
//! task itself that hands them out: it looks at the [`Stage`] whenever it
//! runs, deposits a copy of its descriptor, and, when it is to hold still,
//! what only it knows. It then neither reads nor writes until the stage says
//! so, and keeps everything: to go on is to wake up.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hub, Peer};
use crate::types::ConnId;

/// What connections are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Their work.
    Serve,
    /// Their work, and hand out a copy of the socket.
    Copy,
    /// Nothing: hold still.
    Hold,
    /// Nothing, for those that have moved; the others are to end.
    Over,
}

/// What only a connection's task knows.
#[derive(Debug)]
pub(crate) struct Held {
    /// What the rest of the gateway holds of it.
    pub peer: Arc<Peer>,
    /// Bytes of an unfinished WebSocket frame.
    pub unread: Vec<u8>,
    /// Fragments of an unfinished message, and what they hold.
    pub fragments: (u32, Vec<u8>),
    /// Frames per second it may send (0 = any), thousandths it has left, and
    /// as of when.
    pub tokens: (u32, u32, u64),
}

/// What connections have handed out and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Deposits {
    /// Copies of sockets.
    pub sockets: Vec<(ConnId, OwnedFd)>,
    /// Connections that hold still.
    pub held: HashMap<ConnId, Held>,
    /// Connections that ended after their socket was handed out.
    pub gone: Vec<ConnId>,
    /// Connections whose socket could not be copied.
    pub failed: usize,
}

/// The stage of all connections, and their deposits.
#[derive(Debug, Default)]
pub(crate) struct Freeze {
    /// The attempt, counted, times four, and the stage.
    word: AtomicU32,
    deposits: Mutex<Deposits>,
    deposited: Notify,
    /// Those that go on in another process, once that is settled.
    moved: Mutex<HashSet<ConnId>>,
}

impl Freeze {
    /// The stage, and which attempt it is of.
    #[must_use]
    pub(crate) fn stage(&self) -> (Stage, u32) {
        let word = self.word.load(Ordering::Acquire);
        let stage = match word & 3 {
            0 => Stage::Serve,
            1 => Stage::Copy,
            2 => Stage::Hold,
            _ => Stage::Over,
        };
        (stage, word >> 2)
    }

    /// Begins an attempt: sockets are handed out from now on, by whoever runs
    /// anyway.
    pub(crate) fn begin(&self) {
        *self.deposits.lock() = Deposits::default();
        let attempt = (self.word.load(Ordering::Acquire) >> 2) + 1;
        self.word.store(attempt << 2 | 1, Ordering::Release);
    }

    /// Has every connection hold still, once it runs.
    pub(crate) fn hold(&self) {
        let attempt = self.word.load(Ordering::Acquire) >> 2;
        self.word.store(attempt << 2 | 2, Ordering::Release);
    }

    /// Those that have `moved` hold still for ever; the others are woken.
    pub(crate) fn conclude(&self, moved: HashSet<ConnId>, left: &[Arc<Peer>]) {
        *self.moved.lock() = moved;
        self.word.fetch_or(3, Ordering::AcqRel);
        left.iter().for_each(|peer| peer.outbox.nudge());
    }

    /// Whether a connection goes on in another process.
    #[must_use]
    pub(crate) fn has_moved(&self, conn: ConnId) -> bool {
        self.moved.lock().contains(&conn)
    }

    /// Back to work; what was handed out is closed.
    pub(crate) fn thaw(&self, hub: &Hub) {
        let attempt = self.word.load(Ordering::Acquire) >> 2;
        self.word.store(attempt << 2, Ordering::Release);
        *self.deposits.lock() = Deposits::default();
        for peer in hub.all() {
            peer.outbox.nudge();
        }
    }

    /// Whether connections hold still, or are about to.
    #[must_use]
    pub(crate) fn is_holding(&self) -> bool {
        matches!(self.stage().0, Stage::Hold | Stage::Over)
    }

    /// Takes what there is.
    pub(crate) fn take(&self) -> Deposits {
        std::mem::take(&mut *self.deposits.lock())
    }

    /// Waits for another deposit; one made since the last wait counts.
    pub(crate) async fn deposited(&self) {
        self.deposited.notified().await;
    }

    /// Hands out a copy of a socket; `None` = it could not be made.
    pub(crate) fn deposit_socket(&self, conn: ConnId, socket: Option<OwnedFd>) {
        let mut deposits = self.deposits.lock();
        match socket {
            Some(socket) => deposits.sockets.push((conn, socket)),
            None => deposits.failed += 1,
        }
        drop(deposits);
        self.deposited.notify_one();
    }

    /// Holds still from now on.
    pub(crate) fn deposit_held(&self, held: Held) {
        self.deposits.lock().held.insert(held.peer.identity.conn, held);
        self.deposited.notify_one();
    }

    /// Ended after its socket was handed out.
    pub(crate) fn deposit_gone(&self, conn: ConnId) {
        self.deposits.lock().gone.push(conn);
        self.deposited.notify_one();
    }
}
