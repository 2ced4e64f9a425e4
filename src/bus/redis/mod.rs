//! The bus over Redis pub/sub: one numbered channel per gateway, one publish
//! per destination and batch, a subscriber that re-subscribes by itself.

mod publisher;
mod subscriber;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::publisher::{Publisher, Work};
use self::subscriber::Subscriber;
use super::{Destination, Disturbances, Receiver};
use crate::redis::{Client, Keys};
use crate::task::spawn_core;
use crate::types::{GatewayId, unix_micros};
use crate::wire::pb::BusItem;

/// Most items waiting to be published.
const QUEUE: usize = 16_384;
/// Most items that are queued, or dropped, as one.
const TOGETHER: usize = 2_048;

/// One gateway on the bus.
#[derive(Debug)]
pub(crate) struct RedisBus {
    queue: mpsc::Sender<Work>,
    /// Items that may still be queued.
    room: Arc<Semaphore>,
    /// Gateways for which there was none.
    missed: Arc<Mutex<HashSet<GatewayId>>>,
    disturbances: Disturbances,
    subscribed: watch::Receiver<u64>,
}

impl RedisBus {
    /// Starts the publisher and the subscriber of `own`, until `stop`.
    #[must_use]
    pub(crate) fn start(
        client: Client,
        keys: Keys,
        own: Destination,
        receiver: Receiver,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let (subscribed, watcher) = watch::channel(0);
        let (room, missed) = (Arc::new(Semaphore::new(QUEUE)), Arc::default());
        let disturbances = Disturbances::default();
        let publisher = Publisher {
            client: client.clone(),
            keys: keys.clone(),
            own: own.clone(),
            counters: super::counter::Outbound::new(u64::try_from(unix_micros()).unwrap_or(0)),
            room: Arc::clone(&room),
            missed: Arc::clone(&missed),
        };
        spawn_core("bus publisher", stop, publisher.run(items));
        let subscriber = Subscriber {
            client,
            channel: keys.channel(&own.gateway),
            own,
            receiver,
            subscribed,
            inbound: super::counter::Inbound::default(),
            disturbances: disturbances.clone(),
            alive_at: None,
        };
        spawn_core("bus subscriber", stop, subscriber.run());
        Self { queue, room, missed, disturbances, subscribed: watcher }
    }

    /// Counts subscriptions made; 0 = not subscribed right now. A number that
    /// changed means messages may have been missed.
    #[must_use]
    pub(crate) fn subscribed(&self) -> watch::Receiver<u64> {
        self.subscribed.clone()
    }

    pub(super) const fn disturbances(&self) -> &Disturbances {
        &self.disturbances
    }

    /// Returns how many were dropped for want of room.
    pub(super) fn publish_all(&self, mut items: Vec<(Destination, BusItem)>) -> usize {
        let mut dropped = 0;
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(TOGETHER));
            dropped += self.enqueue(std::mem::replace(&mut items, rest));
        }
        dropped
    }

    fn enqueue(&self, items: Vec<(Destination, BusItem)>) -> usize {
        let count = items.len();
        let room = u32::try_from(count).ok().and_then(|count| self.room.try_acquire_many(count).ok());
        let items = match room {
            Some(taken) => match self.queue.try_send(Work::Items(items)) {
                Ok(()) => {
                    // Given back by the publisher.
                    taken.forget();
                    return 0;
                }
                Err(mpsc::error::TrySendError::Full(Work::Items(items))) => items,
                // It has ended; nobody publishes any more.
                Err(_) => return count,
            },
            None => items,
        };
        self.missed.lock().extend(items.into_iter().map(|(to, _)| to.gateway));
        count
    }

    pub(super) async fn flush(&self) {
        let (done, all) = oneshot::channel();
        if self.queue.send(Work::Flush(done)).await.is_ok() {
            let _ = all.await;
        }
    }
}
