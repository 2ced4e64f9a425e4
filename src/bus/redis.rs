//! The bus over Redis pub/sub: one numbered channel per gateway, one publish
//! per destination and batch, a subscriber that re-subscribes by itself.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use redis::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::counter::{Continuity, Inbound, Outbound, REPEAT_AFTER_MS};
use super::{BUS_VERSION, Destination, Receiver, accepts};
use crate::redis::{Client, Keys, Link};
use crate::task::spawn_core;
use crate::telemetry::metrics;
use crate::types::{GatewayId, monotonic_ms, unix_micros};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, BusMessage, Probe};

/// Most items waiting to be published.
const QUEUE: usize = 16_384;
/// Most items of one batch.
const BATCH: usize = 512;
/// Most bytes of one publish: Redis cuts off a subscriber that falls 32 MB
/// behind, or 8 MB for a minute.
const MAX_PUBLISH: usize = 512 * 1024;
/// How often the own channel is probed, so that a subscription that died
/// silently is found.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// A subscription without a sign of life for this long is made anew.
const DEAF_AFTER: Duration = Duration::from_secs(6);
const MAX_BACKOFF_MS: u64 = 1_000;

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
            counters: Outbound::default(),
        };
        spawn_core("bus publisher", stop, publisher.run(items));
        let subscriber = Subscriber {
            client,
            channel: keys.channel(&own.gateway),
            own,
            receiver,
            subscribed,
            inbound: Inbound::default(),
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

/// What the publisher is given.
#[derive(Debug)]
enum Work {
    Item(Destination, BusItem),
    /// Somebody waits until all before it is published.
    Flush(oneshot::Sender<()>),
}

struct Publisher {
    client: Client,
    keys: Keys,
    own: Destination,
    counters: Outbound,
}

impl Publisher {
    async fn run(mut self, mut work: mpsc::Receiver<Work>) {
        let mut repeat = interval(Duration::from_secs(1));
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Both arms are cancel-safe: recv_many takes nothing when dropped.
            tokio::select! {
                taken = work.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    let mut items = Vec::with_capacity(taken);
                    let mut waiting = Vec::new();
                    for work in batch.drain(..) {
                        match work {
                            Work::Item(to, item) => items.push((to, item)),
                            Work::Flush(done) => waiting.push(done),
                        }
                    }
                    self.publish(items.into_iter()).await;
                    if !waiting.is_empty() {
                        self.repeat(0).await;
                    }
                    for done in waiting {
                        let _ = done.send(());
                    }
                }
                _ = repeat.tick() => self.repeat(REPEAT_AFTER_MS).await,
            }
        }
    }

    /// One publish per destination, items in order; more only where one would
    /// be too long for a subscriber's buffer.
    async fn publish(&mut self, batch: impl Iterator<Item = (Destination, BusItem)>) {
        let mut order = Vec::new();
        let mut grouped: HashMap<Destination, Vec<BusItem>> = HashMap::new();
        for (to, item) in batch {
            let items = grouped.entry(to.clone()).or_default();
            if items.is_empty() {
                order.push(to);
            }
            items.push(item);
        }
        let mut commands = Vec::with_capacity(order.len());
        for to in order {
            let mut part = Vec::new();
            let mut bytes = 0;
            for item in grouped.remove(&to).unwrap_or_default() {
                let size = item.encoded_len();
                if bytes + size > MAX_PUBLISH && !part.is_empty() {
                    commands.push(self.numbered(&to, std::mem::take(&mut part)));
                    bytes = 0;
                }
                bytes += size;
                part.push(item);
            }
            commands.push(self.numbered(&to, part));
        }
        self.send(commands).await;
    }

    fn numbered(&mut self, to: &Destination, items: Vec<BusItem>) -> redis::Cmd {
        let counter = self.counters.next(&to.gateway, monotonic_ms());
        self.command(to, counter, items)
    }

    /// Repeats the last number to whom nothing was sent for so long.
    async fn repeat(&mut self, after_ms: u64) {
        let due = self.counters.repeats(monotonic_ms(), after_ms);
        let of = |(gateway, counter): (GatewayId, u64)| {
            let to = Destination { gateway, epoch: crate::types::Epoch(0) };
            self.command(&to, counter, Vec::new())
        };
        // A repeat that is lost is no loss: the next message counts on.
        let _ = self.client.pipeline(due.into_iter().map(of).collect()).await;
    }

    async fn send(&self, commands: Vec<redis::Cmd>) {
        let tried = commands.len();
        let replies = self.client.pipeline(commands).await.unwrap_or_default();
        let reached =
            replies.into_iter().filter_map(|reply| reply.and_then(Value::extract_error).ok()).count();
        let failed = tried.saturating_sub(reached);
        metrics().dropped_bus_error.increment(u64::try_from(failed).unwrap_or(u64::MAX));
        metrics().bus_published.increment(u64::try_from(reached).unwrap_or(u64::MAX));
    }

    fn command(&self, to: &Destination, counter: u64, items: Vec<BusItem>) -> redis::Cmd {
        let message = BusMessage {
            version: BUS_VERSION,
            source_gateway: self.own.gateway.to_string(),
            source_epoch: self.own.epoch.0,
            destination_gateway: to.gateway.to_string(),
            destination_epoch: to.epoch.0,
            counter,
            sent_at_micros: unix_micros(),
            items,
        };
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.channel(&to.gateway)).arg(message.encode_to_vec());
        command
    }
}

struct Subscriber {
    client: Client,
    channel: String,
    own: Destination,
    receiver: Receiver,
    subscribed: watch::Sender<u64>,
    inbound: Inbound,
}

impl Subscriber {
    async fn run(mut self) {
        let mut link = self.client.link();
        let mut generation = 0;
        loop {
            // No point in knocking before commands get through.
            if link.wait_for(|link| *link != Link::Down).await.is_err() {
                return;
            }
            match self.subscribe().await {
                Ok(messages) => {
                    generation += 1;
                    self.subscribed.send_replace(generation);
                    info!(channel = %self.channel, generation, "subscribed");
                    let why = self.listen(messages).await;
                    warn!(channel = %self.channel, why, "subscription lost; making it anew");
                    self.subscribed.send_replace(0);
                }
                Err(error) => warn!(channel = %self.channel, %error, "cannot subscribe; retrying"),
            }
            sleep(Duration::from_millis(100 + fastrand::u64(0..MAX_BACKOFF_MS / 2))).await;
        }
    }

    async fn subscribe(&self) -> Result<redis::aio::PubSub, crate::redis::RedisError> {
        let mut connection = self.client.pubsub().await?;
        let patience = self.client.timeout().max(Duration::from_secs(1));
        timeout(patience, connection.subscribe(&self.channel))
            .await
            .map_err(|_| crate::redis::RedisError::Timeout)??;
        Ok(connection)
    }

    /// Hands out what arrives until the subscription is dead.
    async fn listen(&mut self, connection: redis::aio::PubSub) -> &'static str {
        let mut messages = connection.into_on_message();
        let prober = tokio::spawn(probe(self.client.clone(), self.channel.clone(), self.own.clone()));
        let _abort = AbortOnDrop(prober);
        loop {
            let next = std::future::poll_fn(|cx| {
                use std::pin::Pin;
                futures_core::Stream::poll_next(Pin::new(&mut messages), cx)
            });
            match timeout(DEAF_AFTER, next).await {
                Err(_) => return "nothing heard, not even the own probe",
                Ok(None) => return "connection closed",
                Ok(Some(message)) => {
                    let value: Result<Bytes, _> = message.get_payload::<Value>().map(payload);
                    match value.map(BusMessage::decode) {
                        Ok(Ok(message)) => self.take(message),
                        _ => metrics().bus_ignored_broken.increment(1),
                    }
                }
            }
        }
    }

    fn take(&mut self, message: BusMessage) {
        if !accepts(&message, &self.own) {
            return;
        }
        let Ok(source) = GatewayId::new(&message.source_gateway) else {
            metrics().bus_ignored_broken.increment(1);
            return;
        };
        let lag = unix_micros().saturating_sub(message.sent_at_micros).max(0);
        metrics().bus_received.increment(1);
        metrics().bus_lag_seconds.record(Duration::from_micros(u64::try_from(lag).unwrap_or(0)));
        // Counter 0 stands outside the count: probes of the subscription.
        if message.counter > 0 {
            let has_items = !message.items.is_empty();
            let seen = self.inbound.observe(
                &source,
                message.source_epoch,
                message.counter,
                has_items,
                monotonic_ms(),
            );
            if seen == Continuity::Hole {
                metrics().bus_gaps.increment(1);
                warn!(%source, counter = message.counter, "bus messages were lost");
            }
        }
        for item in message.items {
            (self.receiver)(&source, item);
        }
    }
}

fn payload(value: Value) -> Bytes {
    match value {
        Value::BulkString(bytes) => bytes.into(),
        _ => Bytes::new(),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Publishes to the own channel so that silence means something.
async fn probe(client: Client, channel: String, own: Destination) {
    let mut tick = interval(PROBE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let message = BusMessage {
            version: BUS_VERSION,
            source_gateway: own.gateway.to_string(),
            source_epoch: own.epoch.0,
            destination_gateway: own.gateway.to_string(),
            destination_epoch: own.epoch.0,
            counter: 0,
            sent_at_micros: unix_micros(),
            items: vec![BusItem { item: Some(Item::Probe(Probe { nonce: 0 })) }],
        };
        let mut command = redis::cmd("PUBLISH");
        command.arg(&channel).arg(message.encode_to_vec());
        // A failure shows as silence.
        let _ = client.command::<i64>(command).await;
    }
}
