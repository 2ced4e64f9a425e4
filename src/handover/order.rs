//! What an operator asks of the running process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// What became of a hot restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Connections that go on in the new process.
    pub moved: u64,
    /// Of these, those that were in the middle of an inbound frame or message.
    pub mid_frame: u64,
    /// Of these, those with bytes that were not written yet.
    pub with_unsent: u64,
    /// Connections that could not move and were asked to come back.
    pub drained: u64,
    /// For how long nothing was read or written, ms.
    pub pause_ms: u64,
    /// The new process.
    pub pid: u32,
    /// Its build.
    pub build: String,
}

/// A hot restart.
#[derive(Debug)]
pub(crate) struct UpgradeOrder {
    /// The program; `None` = the one this process was started from.
    pub binary: Option<PathBuf>,
    /// What became of it, or why not.
    pub done: oneshot::Sender<Result<Report, String>>,
}

/// A drain: the process ends once its clients were asked to go elsewhere.
#[derive(Debug)]
pub(crate) struct DrainOrder {
    /// Within this; `None` = as configured.
    pub deadline: Option<Duration>,
    /// It has begun.
    pub begun: oneshot::Sender<()>,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Order {
    /// Hand everything to another process.
    Upgrade(UpgradeOrder),
    /// Send everybody away.
    Drain(DrainOrder),
}

/// The way to whoever carries them out; one at a time.
#[derive(Debug)]
pub(crate) struct Orders {
    queue: mpsc::Sender<Order>,
    busy: AtomicBool,
}

impl Orders {
    /// The way and its end.
    #[must_use]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Order>) {
        let (queue, orders) = mpsc::channel(1);
        (Self { queue, busy: AtomicBool::new(false) }, orders)
    }

    /// Queues an order; `false` = one is being carried out, or the process is
    /// about to end.
    pub(crate) fn give(&self, order: Order) -> bool {
        self.begin() && self.queue.try_send(order).is_ok()
    }

    /// An order that came otherwise is carried out; `false` as above.
    pub(crate) fn begin(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// The last one is carried out, and the process goes on.
    pub(crate) fn done(&self) {
        self.busy.store(false, Ordering::Release);
    }
}
