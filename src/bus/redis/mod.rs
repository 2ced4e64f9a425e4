//! The bus over Redis pub/sub: one numbered channel per gateway, one publish
//! per destination and batch, a subscriber that re-subscribes by itself.

mod cut;
mod publisher;
mod subscriber;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::cut::Cut;
use self::publisher::{Publisher, Work};
use self::subscriber::Subscriber;
use super::counter::{Heard, Numbers};
use super::{Destination, Disturbances, Receiver};
use crate::redis::{Client, Keys};
use crate::task::spawn_core;
use crate::types::{GatewayId, unix_micros};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, Mark};

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
    cut: Arc<Cut>,
    /// What a mark is published with.
    client: Client,
    channel: String,
    own: Destination,
}

impl RedisBus {
    /// Starts the publisher and the subscriber of `own`, until `stop`.
    /// `divided` = nothing is handed out before [`Self::resume`].
    #[must_use]
    pub(crate) fn start(
        client: Client,
        keys: Keys,
        own: Destination,
        receiver: Receiver,
        divided: bool,
        stop: &CancellationToken,
    ) -> Self {
        let cut = Arc::new(Cut::new(divided));
        let channel = keys.channel(&own.gateway);
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
            client: client.clone(),
            channel: channel.clone(),
            own: own.clone(),
            cut: Arc::clone(&cut),
            receiver,
            subscribed,
            inbound: super::counter::Inbound::default(),
            disturbances: disturbances.clone(),
            alive_at: None,
        };
        spawn_core("bus subscriber", stop, subscriber.run());
        Self { queue, room, missed, disturbances, subscribed: watcher, cut, client, channel, own }
    }

    /// Divides what the channel carries at this mark, once it comes: what is
    /// behind it is kept.
    pub(super) fn expect_mark(&self, nonce: u64) {
        self.cut.expect(nonce);
    }

    /// Publishes the mark.
    pub(super) async fn publish_mark(&self, nonce: u64) -> bool {
        let item = Item::Mark(Mark { nonce });
        self.client.command::<i64>(subscriber::to_self(&self.channel, &self.own, item)).await.is_ok()
    }

    /// Waits until the mark has come.
    pub(super) async fn mark_passed(&self) {
        self.cut.passed().await;
    }

    /// How far each source was heard before the mark, and what was sent; all
    /// that was queued is published before.
    pub(super) async fn standing(&self) -> Option<(Numbers, Vec<Heard>)> {
        let (done, numbers) = oneshot::channel();
        self.queue.send(Work::Numbers(done)).await.ok()?;
        Some((numbers.await.ok()?, self.cut.heard()))
    }

    /// Hands out what was kept behind the mark, and everything from then on;
    /// with the standing of another process it goes on as that one.
    pub(super) async fn resume(&self, standing: Option<(Numbers, Vec<Heard>)>) {
        let (numbers, heard) = standing.unzip();
        if let Some(numbers) = numbers {
            let _ = self.queue.send(Work::Resume(numbers)).await;
        }
        self.cut.release(heard);
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
