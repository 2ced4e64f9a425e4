//! The bus over Redis pub/sub: one numbered channel per gateway, one publish
//! per destination and batch, a subscriber that re-subscribes by itself.

mod publisher;
mod subscriber;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::publisher::{Publisher, Work};
use self::subscriber::Subscriber;
use super::{Destination, Receiver};
use crate::redis::{Client, Keys};
use crate::task::spawn_core;
use crate::wire::pb::BusItem;

/// Most items waiting to be published.
const QUEUE: usize = 16_384;

/// One gateway on the bus.
#[derive(Debug)]
pub(crate) struct RedisBus {
    queue: mpsc::Sender<Work>,
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
        let publisher = Publisher {
            client: client.clone(),
            keys: keys.clone(),
            own: own.clone(),
            counters: super::counter::Outbound::default(),
        };
        spawn_core("bus publisher", stop, publisher.run(items));
        let subscriber = Subscriber {
            client,
            channel: keys.channel(&own.gateway),
            own,
            receiver,
            subscribed,
            inbound: super::counter::Inbound::default(),
        };
        spawn_core("bus subscriber", stop, subscriber.run());
        Self { queue, subscribed: watcher }
    }

    /// Counts subscriptions made; 0 = not subscribed right now. A number that
    /// changed means messages may have been missed.
    #[must_use]
    pub(crate) fn subscribed(&self) -> watch::Receiver<u64> {
        self.subscribed.clone()
    }

    pub(super) fn publish(&self, to: Destination, item: BusItem) -> bool {
        self.queue.try_send(Work::Item(to, item)).is_ok()
    }

    pub(super) async fn flush(&self) {
        let (done, all) = oneshot::channel();
        if self.queue.send(Work::Flush(done)).await.is_ok() {
            let _ = all.await;
        }
    }
}
