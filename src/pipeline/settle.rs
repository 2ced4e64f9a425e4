//! The verb *settle*: everything begun is done, so that nothing is lost when
//! another process goes on.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Inbox, Pipeline, acknowledge, pull, relay};

/// How often it is looked whether what is owed is paid.
const LOOK: Duration = Duration::from_millis(5);

impl Pipeline {
    /// Waits until all that was asked for so far is answered, delivered,
    /// written and published. Whoever calls this sees to it that nothing new
    /// is asked for, and holds the deadline.
    pub(crate) async fn settle(&self, inbox: &Inbox) {
        inbox.applied().await;
        let (done, relayed) = oneshot::channel();
        if self.relays.send(relay::Work::Barrier(done)).await.is_ok() {
            let _ = relayed.await;
        }
        let pulls = u32::try_from(pull::MAX_CONCURRENT).unwrap_or(u32::MAX);
        // All of them are free once every read is answered.
        drop(self.pulls.acquire_many(pulls).await);
        self.drained().await;
        let (done, written) = oneshot::channel();
        if self.reports.send(acknowledge::Work::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
        while !self.ports.owed.is_empty() {
            sleep(LOOK).await;
        }
        self.ports.hold_pulse().await;
        self.ports.bus.flush().await;
    }
}
