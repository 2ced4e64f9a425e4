//! A hot restart, as the process around it sees it: who is let in, what
//! stands still, and what goes on where it fails.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::run::Serving;
use crate::handover::{Committed, Estate, Facts, HandoverError, Report};
use crate::telemetry::metrics;

/// Longest that handshakes begun before may take; those that take longer are
/// asked to come back.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// Longest that writing down who came may take.
const FLUSH: Duration = Duration::from_millis(300);
/// Longest that calls of operators may take.
const CALLS: Duration = Duration::from_millis(500);

impl Serving {
    /// Hands everything to a new process of `binary`, or of the program that
    /// this one was started from. On an error everything goes on here.
    pub(super) async fn upgrade(&mut self, binary: Option<&Path>) -> Result<Committed, HandoverError> {
        let started = Instant::now();
        info!("hot restart begins");
        self.supervisor.status("hot restart");
        let upgraded = self.hand_over(binary).await;
        match &upgraded {
            Ok(Committed { report: Report { moved, pause_ms, pid, .. }, left, .. }) => {
                let drained = left.len();
                info!(moved, drained, pause_ms, pid, took = ?started.elapsed(), "another process has taken over");
            }
            Err(why) => {
                metrics().handovers_failed.increment(1);
                error!(%why, cause = why.label(), "hot restart failed; this process goes on");
                self.supervisor.status(&format!("serving; the last hot restart failed: {why}"));
            }
        }
        upgraded
    }

    async fn hand_over(&mut self, binary: Option<&Path>) -> Result<Committed, HandoverError> {
        let estate = self.estate()?;
        let prepared = match estate.prepare(&self.program.at(binary)).await {
            Ok(prepared) => prepared,
            Err(why) => {
                estate.resume(Duration::ZERO).await;
                return Err(why);
            }
        };
        // From here on newcomers wait, and then everybody.
        self.clients.close().await;
        self.operators.close();
        self.wait_for_handshakes().await;
        let paused = Instant::now();
        let committed = match timeout(CALLS, self.admin.quiet.write()).await {
            Err(_) => Err(HandoverError::Deadline("a call of an operator does not end")),
            Ok(mut moved) => {
                // Nobody comes any more. What cannot be written now is lost.
                if let Some(census) = &self.context.census {
                    census.part(FLUSH).await;
                }
                let committed = estate.commit(prepared, paused + self.config.handover_pause).await;
                *moved = committed.is_ok();
                committed
            }
        };
        if committed.is_err() {
            estate.resume(paused.elapsed()).await;
            let opened = self.clients.open().and_then(|()| self.operators.open());
            opened.map_err(HandoverError::io("the listeners cannot be opened again"))?;
        }
        committed
    }

    /// Nobody new comes: what was begun is soon a connection, or nothing.
    async fn wait_for_handshakes(&self) {
        let named = async {
            while self.context.establishing.load(Ordering::Acquire) > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(HANDSHAKES, named).await.is_err() {
            warn!(handshakes = self.context.establishing.load(Ordering::Acquire), "not waited for");
        }
    }

    fn estate(&self) -> Result<Estate, HandoverError> {
        let failed = HandoverError::io("descriptors");
        let descriptors = || -> std::io::Result<_> {
            Ok(vec![
                ("websocket", self.clients.copy()?),
                ("admin", self.operators.copy()?),
                ("lock", self.data.lock()?),
            ])
        };
        Ok(Estate {
            context: self.context.clone(),
            inbox: self.admin.inbox.clone(),
            recorder: self.admin.recorder.clone(),
            facts: Facts::of(&self.config),
            descriptors: descriptors().map_err(failed)?,
        })
    }
}
