//! Entries on their way to the log: a bounded queue, and at most one batch
//! under way.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::analytics::{Item, Person};
use crate::store::StoreError;
use crate::store::ledger::{Batch, Ledger};
use crate::telemetry::metrics;

/// Most entries that wait: as many people as come while the store is away.
const MOST: usize = 200_000;
/// Entries of one batch.
const BATCH: usize = 1_000;
/// Room in the queue that is kept.
const KEPT: usize = 1_000;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Flushed {
    /// It is in the log, or there is none.
    Written,
    /// The store is away: it waits.
    Away,
    /// The store will not have it: it is dropped.
    Broken(Arc<[Item]>),
}

/// See above.
#[derive(Debug)]
pub(super) struct Recorder {
    gateway: String,
    queue: Mutex<Queue>,
    /// Held by whoever writes.
    writing: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Item>,
    /// The batch under way and its number, kept until it is known to be in the
    /// log.
    under_way: Option<(u64, Arc<[Item]>)>,
}

impl Recorder {
    pub(super) fn new(gateway: &str) -> Self {
        Self { gateway: gateway.to_owned(), queue: Mutex::default(), writing: Semaphore::new(1) }
    }

    /// Whether there was room.
    pub(super) fn push(&self, item: Item) -> bool {
        let mut queue = self.queue.lock();
        let has_room = queue.waiting.len() < MOST;
        if has_room {
            queue.waiting.push_back(item);
        }
        has_room
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u64 {
        let queue = self.queue.lock();
        let under_way = queue.under_way.as_ref().map_or(0, |(_, items)| items.len());
        u64::try_from(queue.waiting.len() + under_way).unwrap_or(u64::MAX)
    }

    /// Whose entries wait.
    pub(super) fn people(&self) -> Vec<Person> {
        let queue = self.queue.lock();
        let under_way = queue.under_way.iter().flat_map(|(_, items)| items.iter());
        queue.waiting.iter().chain(under_way).filter_map(|item| item.entry.person()).collect()
    }

    /// Writes one batch.
    pub(super) async fn flush(&self, ledger: &Ledger, now: i64) -> Flushed {
        let Ok(_writing) = self.writing.acquire().await else { return Flushed::Away };
        let Some((number, items)) = self.next() else {
            metrics().census.sink_lag_store.set(0.0);
            return Flushed::Written;
        };
        let oldest = items.first().map_or(now, |item| item.entry.received_at);
        let started = std::time::Instant::now();
        let writer = Some((self.gateway.as_str(), number));
        let written = ledger.append(Batch { items: &items, writer, now }).await;
        let flushed = match written {
            Ok(recorded) => {
                metrics().census.recorded.increment(recorded.accepted);
                metrics().census.flush_seconds.record(started.elapsed());
                metrics().census.sink_lag_store.set(0.0);
                Flushed::Written
            }
            Err(StoreError::Unavailable) => {
                // By the clock of whoever saw it first.
                let lag = u32::try_from(now.saturating_sub(oldest).max(0)).unwrap_or(u32::MAX);
                metrics().census.sink_lag_store.set(f64::from(lag) / 1_000.0);
                return Flushed::Away;
            }
            Err(StoreError::Broken(why)) => {
                tracing::error!(why, entries = items.len(), "not recorded who came");
                let lost = u64::try_from(items.len()).unwrap_or(0);
                metrics().census.dropped_broken.increment(lost);
                Flushed::Broken(items)
            }
        };
        self.queue.lock().under_way = None;
        flushed
    }

    fn next(&self) -> Option<(u64, Arc<[Item]>)> {
        let mut queue = self.queue.lock();
        if queue.under_way.is_none() && !queue.waiting.is_empty() {
            let count = queue.waiting.len().min(BATCH);
            let items: Arc<[Item]> = queue.waiting.drain(..count).collect();
            // What a wave of people took is not kept for the next one.
            queue.waiting.shrink_to(KEPT);
            queue.under_way = Some((fastrand::u64(1..), items));
        }
        queue.under_way.clone()
    }
}
