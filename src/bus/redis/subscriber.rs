//! The listening half.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use redis::Value;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::super::counter::{Continuity, Inbound};
use super::super::{BUS_VERSION, Cause, Destination, Disturbances, Receiver, accepts};
use super::cut::Cut;
use crate::redis::{Client, Link};
use crate::telemetry::metrics;
use crate::types::{GatewayId, unix_micros, unix_ms};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, BusMessage, Probe};

/// How often the own channel is probed, so that a subscription that died
/// silently is found.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A subscription without a sign of life for this long is made anew.
const DEAF_AFTER: Duration = Duration::from_secs(4);
const MAX_BACKOFF_MS: u64 = 1_000;

/// Listens on the own channel.
pub(super) struct Subscriber {
    pub(super) client: Client,
    pub(super) channel: String,
    pub(super) own: Destination,
    pub(super) cut: Arc<Cut>,
    pub(super) receiver: Receiver,
    pub(super) subscribed: watch::Sender<u64>,
    pub(super) inbound: Inbound,
    pub(super) disturbances: Disturbances,
    /// Unix ms of the last proof that the subscription hears; `None` = there
    /// was never one.
    pub(super) alive_at: Option<i64>,
}

impl Subscriber {
    /// Until the client ends.
    pub(super) async fn run(mut self) {
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
                    // What others sent in between went nowhere.
                    if let Some(alive_at) = self.alive_at.replace(unix_ms()) {
                        self.disturbances.hold(Cause::Resubscribed, alive_at);
                    }
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
            let cut = Arc::clone(&self.cut);
            // Both arms are cancel-safe.
            let heard = tokio::select! {
                biased;
                kept = cut.released() => {
                    self.inbound.resume(kept.heard);
                    if kept.is_short {
                        self.disturbances.report(Cause::Hole, self.alive_at.unwrap_or_else(unix_ms));
                    }
                    kept.messages.into_iter().for_each(|message| self.hand_out(message));
                    continue;
                }
                heard = timeout(DEAF_AFTER, next) => heard,
            };
            match heard {
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
        if message.source_gateway == self.own.gateway.as_str() {
            self.alive_at = Some(message.sent_at_micros / 1_000);
        }
        let heard = || self.inbound.heard();
        if let Some(message) = self.cut.judge(message, heard) {
            self.hand_out(message);
        }
    }

    fn hand_out(&mut self, message: BusMessage) {
        let Ok(source) = GatewayId::new(&message.source_gateway) else {
            metrics().bus_ignored_broken.increment(1);
            return;
        };
        let lag = unix_micros().saturating_sub(message.sent_at_micros).max(0);
        metrics().bus_received.increment(1);
        metrics().bus_lag_seconds.record(Duration::from_micros(u64::try_from(lag).unwrap_or(0)));
        let is_own = source == self.own.gateway;
        // Counter 0 stands outside the count: probes of the subscription.
        if message.counter > 0 {
            let has_items = !message.items.is_empty();
            let (epoch, counter) = (message.source_epoch, message.counter);
            match self.inbound.observe(&source, epoch, counter, has_items, unix_ms()) {
                Continuity::Hole(since) => {
                    metrics().bus_gaps.increment(1);
                    warn!(%source, counter, "bus messages were lost");
                    self.disturbances.report(Cause::Hole, since);
                }
                Continuity::NewSource(since) if !is_own => {
                    self.disturbances.report(Cause::NewSource, since);
                }
                Continuity::NewSource(_) | Continuity::Whole | Continuity::Late => {}
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
        let command = to_self(&channel, &own, Item::Probe(Probe { nonce: 0 }));
        // A failure shows as silence.
        let _ = client.command::<i64>(command).await;
    }
}

/// Publishes an item on the own channel, outside the count.
pub(super) fn to_self(channel: &str, own: &Destination, item: Item) -> redis::Cmd {
    let message = BusMessage {
        version: BUS_VERSION,
        source_gateway: own.gateway.to_string(),
        source_epoch: own.epoch.0,
        destination_gateway: own.gateway.to_string(),
        destination_epoch: own.epoch.0,
        counter: 0,
        sent_at_micros: unix_micros(),
        items: vec![BusItem { item: Some(item) }],
    };
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel).arg(message.encode_to_vec());
    command
}
