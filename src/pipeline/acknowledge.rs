//! The verb *acknowledge*: what people's devices have received and read.
//!
//! Written behind and coalesced: at most one write per user, conversation and
//! second, the first at once. What grew is told to the other side, or to the
//! members of a group, once a second and group. In a large group only what
//! somebody read is kept, for his own other devices: what its members received
//! is dropped before the store.

mod gathering;
mod size;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::gathering::{Gathering, Position};
use self::size::{Reach, Sizes};
use super::group::News;
use super::{Outgoing, Pipeline, Ports};
use crate::hub::{Class, Peer};
use crate::store::{Cursor, Progress};
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, UserId, unix_ms};
use crate::wire::pb::{Ack, AckStatus, Envelope, Receipt};
use crate::wire::{Payload, reply};

const QUEUE: usize = 16_384;
/// Part of the queue that only what was read may fill.
const KEPT_FOR_READ: usize = QUEUE / 4;
const BATCH: usize = 512;
/// Most positions waiting to be written.
const MAX_PENDING: usize = 100_000;
/// Shortest time between two writes of one position.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A device's news.
#[derive(Debug)]
pub(crate) struct Report {
    /// Where, whose, up to where.
    pub progress: Progress,
    /// The connection it came from.
    pub from: Arc<Peer>,
}

/// What the writer is given.
#[derive(Debug)]
pub(super) enum Work {
    Report(Report),
    /// Somebody waits until all before it is written and told.
    Flush(oneshot::Sender<()>),
}

impl Pipeline {
    /// Queues news. A full queue drops it: the next one is cumulative. What
    /// was only received gives way first: there may be no next one of what was
    /// read.
    pub(crate) fn acknowledge(&self, report: Report) {
        let crowded = report.progress.read == 0 && self.reports.capacity() < KEPT_FOR_READ;
        if crowded || self.reports.try_send(Work::Report(report)).is_err() {
            metrics().dropped_report_full.increment(1);
        }
    }
}

type Key = (ConversationId, UserId);

struct Waiting {
    delivered: i64,
    read: i64,
    from: Arc<Peer>,
}

struct Writer {
    ports: Arc<Ports>,
    waiting: BTreeMap<Key, Waiting>,
    /// Written within the last second.
    written: HashMap<Key, Instant>,
    /// Waiting and not written within the last second.
    due: Vec<Key>,
    sizes: Sizes,
    groups: Gathering,
}

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) -> mpsc::Sender<Work> {
    let (sender, reports) = mpsc::channel(QUEUE);
    let writer = Writer {
        ports: Arc::clone(ports),
        waiting: BTreeMap::new(),
        written: HashMap::new(),
        due: Vec::new(),
        sizes: Sizes::new(ports.groups.receipt_members),
        groups: Gathering::default(),
    };
    spawn_core("acknowledge", stop, writer.run(reports));
    sender
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Work>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let mut flushing = Vec::new();
            // Both arms are cancel-safe.
            tokio::select! {
                biased;
                // Only here is everything gone through: news alone is looked up.
                _ = tick.tick() => {
                    self.written.retain(|_, at| at.elapsed() < WRITE_EVERY);
                    let rested = |key: &&Key| !self.written.contains_key(*key);
                    self.due = self.waiting.keys().filter(rested).cloned().collect();
                }
                taken = reports.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for work in batch.drain(..) {
                        match work {
                            Work::Report(report) => self.merge(report),
                            Work::Flush(done) => flushing.push(done),
                        }
                    }
                }
            }
            if !flushing.is_empty() {
                self.due = self.waiting.keys().cloned().collect();
            }
            while !self.due.is_empty() && self.flush().await {}
            // Those who wait for a flush do so before everything stands still.
            let until = Instant::now() + if flushing.is_empty() { Duration::ZERO } else { WRITE_EVERY };
            for telling in self.groups.take(until) {
                self.ports.tell_members(&telling.group, &telling.audience, &telling.news);
            }
            for done in flushing {
                let _ = done.send(());
            }
        }
    }

    fn merge(&mut self, report: Report) {
        let Report { mut progress, from } = report;
        if self.sizes.reach(&progress.conversation, Instant::now()) == Reach::Own {
            progress.delivered = 0;
            if progress.read == 0 {
                return;
            }
        }
        let key = (progress.conversation, progress.user);
        if self.waiting.len() >= MAX_PENDING && !self.waiting.contains_key(&key) {
            metrics().dropped_report_full.increment(1);
            return;
        }
        if !self.waiting.contains_key(&key) && !self.written.contains_key(&key) {
            self.due.push(key.clone());
        }
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
            delivered: 0,
            read: 0,
            from: Arc::clone(&from),
        });
        waiting.delivered = waiting.delivered.max(progress.delivered);
        waiting.read = waiting.read.max(progress.read);
        waiting.from = from;
    }

    /// Writes what is due, a batch at a time; `false` = the store is away, and
    /// the next tick tries again with what has come until then.
    async fn flush(&mut self) -> bool {
        let batch = self.batch();
        let Ok(cursors) = self.ports.store.advance(&batch).await else {
            self.due.clear();
            return false;
        };
        let now = Instant::now();
        let mut outgoing = Vec::new();
        for (progress, cursor) in batch.into_iter().zip(cursors) {
            let key = (progress.conversation.clone(), progress.user);
            if let Some(waiting) = self.waiting.remove(&key) {
                self.learn(&progress.conversation, cursor.as_ref(), now);
                if let Some(cursor) = cursor {
                    self.tell(&progress, &cursor, &waiting.from, &mut outgoing);
                }
            }
            self.written.insert(key, now);
        }
        if !outgoing.is_empty() {
            self.ports.deliver(&outgoing).await;
        }
        true
    }

    /// What to write of what is due. Of a group of unknown size one position
    /// is written first: it may make the others needless.
    fn batch(&mut self) -> Vec<Progress> {
        let now = Instant::now();
        let mut batch = Vec::new();
        let mut learning = HashSet::new();
        let mut later = Vec::new();
        for key in self.due.split_off(self.due.len().saturating_sub(BATCH)) {
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            match self.sizes.reach(&key.0, now) {
                Reach::All => {}
                Reach::Own if waiting.read == 0 => {
                    self.waiting.remove(&key);
                    continue;
                }
                Reach::Own => waiting.delivered = 0,
                Reach::Unknown if learning.insert(key.0.clone()) => {}
                Reach::Unknown => {
                    later.push(key);
                    continue;
                }
            }
            let (delivered, read) = (waiting.delivered, waiting.read);
            let (conversation, user) = key;
            batch.push(Progress { conversation, user, delivered, read });
        }
        self.due.extend(later);
        batch
    }

    fn learn(&mut self, conversation: &ConversationId, cursor: Option<&Cursor>, now: Instant) {
        if matches!(conversation, ConversationId::P2p(..)) {
            return;
        }
        match cursor.and_then(|cursor| cursor.audience.as_ref()) {
            Some(audience) => self.sizes.learn(conversation, audience.members, now),
            // Not his group, or none at all: the others are not held back.
            None if self.sizes.reach(conversation, now) == Reach::Unknown => {
                self.sizes.learn(conversation, 0, now);
            }
            None => {}
        }
    }

    fn tell(&mut self, progress: &Progress, cursor: &Cursor, from: &Arc<Peer>, outgoing: &mut Vec<Outgoing>) {
        let user = progress.user;
        let (delivered, read) = (delivered(progress, cursor), receipt(progress, cursor));
        let control = |users, envelope, kind| Outgoing {
            users,
            except: Some(Arc::clone(from)),
            envelope,
            class: Class::Control,
            kind,
            mark: None,
            audience: None,
        };
        match (progress.conversation.peer_of(user), &cursor.audience) {
            (Some(other), _) => {
                outgoing.extend(delivered.map(|ack| control(vec![other], ack, FrameKind::Ack)));
                // The reader's own other devices learn what is read, too.
                outgoing.extend(read.map(|receipt| control(vec![other, user], receipt, FrameKind::Receipt)));
            }
            (None, Some(audience)) if audience.members <= self.ports.groups.receipt_members => {
                let news = |envelope, kind| News { envelope, kind, from: Arc::clone(from) };
                let mut add = |position, news| {
                    self.groups.add(&progress.conversation, audience, (user, position), news);
                };
                if let Some(ack) = delivered {
                    add(Position::Delivered, news(ack, FrameKind::Ack));
                }
                if let Some(receipt) = read {
                    add(Position::Read, news(receipt, FrameKind::Receipt));
                }
            }
            (None, _) => {
                outgoing.extend(read.map(|receipt| control(vec![user], receipt, FrameKind::Receipt)));
            }
        }
    }
}

/// Word of what was received, if it grew.
fn delivered(progress: &Progress, cursor: &Cursor) -> Option<Envelope> {
    let ack = Ack {
        seq: cursor.delivered,
        status: AckStatus::Delivered.into(),
        conversation_id: progress.conversation.text(),
        server_time: unix_ms(),
        by_user_id: progress.user.get(),
        epoch: cursor.epoch,
        ..Ack::default()
    };
    cursor.delivered_grew.then(|| reply("", Payload::Ack(ack)))
}

/// Word of what was read, if it grew.
fn receipt(progress: &Progress, cursor: &Cursor) -> Option<Envelope> {
    let receipt = Receipt {
        conversation_id: progress.conversation.text(),
        read_seq: cursor.read,
        by_user_id: progress.user.get(),
        epoch: cursor.epoch,
    };
    cursor.read_grew.then(|| reply("", Payload::Read(receipt)))
}
