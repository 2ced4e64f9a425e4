//! The publishing half.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use redis::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::super::counter::{Numbers, Outbound};
use super::super::{BUS_VERSION, Destination};
use crate::redis::{Client, Keys};
use crate::telemetry::metrics;
use crate::types::{GatewayId, monotonic_ms, unix_micros};
use crate::wire::pb::{BusItem, BusMessage};

/// Most works of one batch.
const BATCH: usize = 512;
/// How often it is looked for numbers to be repeated.
const REPEAT_TICK: Duration = Duration::from_millis(250);
/// Most bytes of one publish: Redis cuts off a subscriber that falls 32 MB
/// behind, or 8 MB for a minute.
const MAX_PUBLISH: usize = 512 * 1024;

/// What the publisher is given.
#[derive(Debug)]
pub(super) enum Work {
    /// To be published, those to one destination in one.
    Items(Vec<(Destination, BusItem)>),
    /// Somebody waits until all before it is published.
    Flush(oneshot::Sender<()>),
    /// The same, who wants to know the numbers given.
    Numbers(oneshot::Sender<Numbers>),
    /// Goes on with the numbers of another process.
    Resume(Numbers),
}

/// Numbers, groups and publishes what is queued.
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) own: Destination,
    pub(super) counters: Outbound,
    /// What taken items give back.
    pub(super) room: Arc<Semaphore>,
    /// Gateways whose items there was no room for.
    pub(super) missed: Arc<Mutex<HashSet<GatewayId>>>,
}

impl Publisher {
    /// Until the queue ends.
    pub(super) async fn run(mut self, mut work: mpsc::Receiver<Work>) {
        let mut repeat = interval(REPEAT_TICK);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Both arms are cancel-safe: recv_many takes nothing when dropped.
            tokio::select! {
                taken = work.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    let mut all = Vec::with_capacity(taken);
                    let mut waiting = Vec::new();
                    let mut asking = Vec::new();
                    for work in batch.drain(..) {
                        match work {
                            Work::Items(items) => all.extend(items),
                            Work::Flush(done) => waiting.push(done),
                            Work::Numbers(done) => asking.push(done),
                            Work::Resume(numbers) => self.counters.resume(numbers, monotonic_ms()),
                        }
                    }
                    self.room.add_permits(all.len());
                    self.skip_missed();
                    self.publish(all.into_iter()).await;
                    if !waiting.is_empty() {
                        self.repeat(true).await;
                    }
                    for done in waiting {
                        let _ = done.send(());
                    }
                    for done in asking {
                        let _ = done.send(self.counters.numbers());
                    }
                }
                _ = repeat.tick() => {
                    self.skip_missed();
                    self.repeat(false).await;
                }
            }
        }
    }

    /// What was dropped takes a number all the same: its destination sees the
    /// hole.
    fn skip_missed(&mut self) {
        let missed = std::mem::take(&mut *self.missed.lock());
        for gateway in missed {
            self.counters.next(&gateway, monotonic_ms());
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

    /// Repeats the last number to whom nothing was sent for a while. What
    /// Redis did not take is due again.
    async fn repeat(&mut self, hurry: bool) {
        let due = self.counters.due(monotonic_ms(), hurry);
        let of = |(gateway, counter): &(GatewayId, u64)| {
            let to = Destination { gateway: gateway.clone(), epoch: crate::types::Epoch(0) };
            self.command(&to, *counter, Vec::new())
        };
        let replies = self.client.pipeline(due.iter().map(of).collect()).await.unwrap_or_default();
        for ((gateway, _), reply) in due.iter().zip(replies) {
            if reply.and_then(Value::extract_error).is_ok() {
                self.counters.repeated(gateway);
            }
        }
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
