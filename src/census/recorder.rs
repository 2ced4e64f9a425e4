//! Entries on their way to the log: a bounded queue, and at most one batch
//! under way. A wave of people goes in batches as they come, so that the queue
//! is as long as one of them while the store answers.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::analytics::{Item, Person};
use crate::store::StoreError;
use crate::store::ledger::{Batch, Ledger};
use crate::telemetry::metrics;

/// Most entries that wait: as many people as come while the store is away.
const MOST: usize = 200_000;
/// Entries of one batch.
const BATCH: usize = 1_000;
/// Room in the queue that is kept.
const KEPT: usize = 64;

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
    /// Told at each batch that is complete.
    full: Notify,
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
        let writing = Semaphore::new(1);
        Self { gateway: gateway.to_owned(), queue: Mutex::default(), full: Notify::new(), writing }
    }

    /// Whether there was room.
    pub(super) fn push(&self, item: Item) -> bool {
        let mut queue = self.queue.lock();
        let has_room = queue.waiting.len() < MOST;
        if has_room {
            queue.waiting.push_back(item);
            if queue.waiting.len().is_multiple_of(BATCH) {
                self.full.notify_one();
            }
        }
        has_room
    }

    /// Until there is a batch of full size, or was one since the last call.
    pub(super) async fn is_full(&self) {
        self.full.notified().await;
    }

    /// Whether a batch of full size waits.
    pub(super) fn has_batch(&self) -> bool {
        self.queue.lock().waiting.len() >= BATCH
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::analytics::{Day, Entry, Place, SEEN};
    use crate::store::{EmbeddedStore, Left};
    use crate::types::UserId;

    fn item(user: i64) -> Item {
        let entry = Entry {
            name: SEEN.to_owned(),
            user: UserId::new(user).ok(),
            install: None,
            at: 0,
            received_at: 0,
            id: String::new(),
            place: Place::default(),
            properties: String::new(),
        };
        Item { entry, day: Day::parse("2026-11-21").unwrap() }
    }

    #[tokio::test]
    async fn a_wave_goes_in_batches_as_it_comes_and_its_room_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::Embedded(EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0);
        let recorder = Recorder::new("gw-a");
        assert!((1..1_000).all(|user| recorder.push(item(user))));
        assert!(recorder.is_full().now_or_never().is_none() && !recorder.has_batch());
        assert!((1_000..=2_500).all(|user| recorder.push(item(user))));
        assert!(recorder.is_full().now_or_never().is_some() && recorder.has_batch());
        assert!(recorder.is_full().now_or_never().is_none(), "once for all that wait");
        for left in [1_500, 500, 0] {
            assert!(matches!(recorder.flush(&ledger, 0).await, Flushed::Written));
            assert_eq!(recorder.waiting(), left);
        }
        assert!(recorder.queue.lock().waiting.capacity() <= KEPT);
    }
}
