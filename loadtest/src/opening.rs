//! Many clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Stage;
use crate::peer::Peer;
use crate::report::Latencies;

/// What opening gave.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// Those that are ready, with their number.
    pub(crate) peers: Vec<(u32, Peer)>,
    /// From the dial, or from when it was due, to `Ready`.
    pub(crate) latencies: Latencies,
    /// Those that are not.
    pub(crate) failed: u64,
    /// Why the first of them is not.
    pub(crate) failure: Option<anyhow::Error>,
    /// All of it.
    pub(crate) took: Duration,
}

impl Opening {
    /// Opens `count` connections, `stage.opening` at once, `rate` per second
    /// or as fast as they come.
    pub(crate) async fn run(stage: &Stage, count: u32, rate: Option<f64>) -> Result<Self> {
        let next = Arc::new(AtomicU32::new(0));
        let begin = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..stage.opening.min(count) {
            let (targets, next, first_user) = (stage.targets.clone(), Arc::clone(&next), stage.first_user);
            workers.spawn(async move {
                let mut part = Self::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return part;
                    }
                    let due = match rate {
                        Some(rate) => begin + Duration::from_secs_f64(f64::from(index) / rate),
                        None => Instant::now(),
                    };
                    sleep_until(due).await;
                    match Peer::connect(&targets, index, first_user + u64::from(index)).await {
                        Ok(peer) => {
                            part.latencies.record(due.elapsed());
                            part.peers.push((index, peer));
                        }
                        Err(error) => {
                            part.failed += 1;
                            part.failure.get_or_insert(error);
                        }
                    }
                }
            });
        }
        let mut whole = Self::default();
        while let Some(part) = workers.join_next().await {
            let part = part.context("a task of the load generator")?;
            whole.peers.extend(part.peers);
            whole.latencies.add(&part.latencies)?;
            whole.failed += part.failed;
            whole.failure = whole.failure.or(part.failure);
        }
        whole.took = begin.elapsed();
        whole.peers.sort_unstable_by_key(|(index, _)| *index);
        Ok(whole)
    }

    /// Every client, or why one is missing.
    pub(crate) fn complete(self) -> Result<Vec<Peer>> {
        match self.failure {
            Some(error) => Err(error.context(format!("{} connections did not open", self.failed))),
            None => Ok(self.peers.into_iter().map(|(_, peer)| peer).collect()),
        }
    }
}
