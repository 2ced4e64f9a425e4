//! The verb *acknowledge*: what people's devices have received and read.
//!
//! Written behind and coalesced: at most one write per user, conversation and
//! second, the first at once. What grew is told to the other side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Outgoing, Pipeline, Ports};
use crate::hub::{Class, Peer};
use crate::store::{Cursor, Progress};
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, UserId, unix_ms};
use crate::wire::pb::{Ack, AckStatus, Receipt};
use crate::wire::{Payload, reply};

const QUEUE: usize = 16_384;
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

impl Pipeline {
    /// Queues news. A full queue drops it: the next one is cumulative.
    pub(crate) fn acknowledge(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
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
    waiting: HashMap<Key, Waiting>,
    /// Written within the last second.
    written: HashMap<Key, Instant>,
    /// Waiting and not written within the last second.
    due: Vec<Key>,
}

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) -> mpsc::Sender<Report> {
    let (sender, reports) = mpsc::channel(QUEUE);
    let writer = Writer {
        ports: Arc::clone(ports),
        waiting: HashMap::new(),
        written: HashMap::new(),
        due: Vec::new(),
    };
    spawn_core("acknowledge", stop, writer.run(reports));
    sender
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Both arms are cancel-safe.
            tokio::select! {
                taken = reports.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|report| self.merge(report));
                }
                // Only here is everything gone through: news alone is looked up.
                _ = tick.tick() => {
                    self.written.retain(|_, at| at.elapsed() < WRITE_EVERY);
                    let rested = |key: &&Key| !self.written.contains_key(*key);
                    self.due = self.waiting.keys().filter(rested).cloned().collect();
                }
            }
            while !self.due.is_empty() && self.flush().await {}
        }
    }

    fn merge(&mut self, report: Report) {
        let Report { progress, from } = report;
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
        let due = self.due.split_off(self.due.len().saturating_sub(BATCH));
        let batch: Vec<Progress> = due
            .iter()
            .filter_map(|key| {
                let waiting = self.waiting.get(key)?;
                let (conversation, user) = key.clone();
                Some(Progress { conversation, user, delivered: waiting.delivered, read: waiting.read })
            })
            .collect();
        let Ok(cursors) = self.ports.store.advance(&batch).await else {
            self.due.clear();
            return false;
        };
        let mut outgoing = Vec::new();
        for (progress, cursor) in batch.into_iter().zip(cursors) {
            let key = (progress.conversation.clone(), progress.user);
            if let (Some(waiting), Some(cursor)) = (self.waiting.remove(&key), cursor) {
                tell(&progress, &cursor, &waiting.from, &mut outgoing);
            }
            self.written.insert(key, Instant::now());
        }
        if !outgoing.is_empty() {
            self.ports.deliver(&outgoing).await;
        }
        true
    }
}

fn tell(progress: &Progress, cursor: &Cursor, from: &Arc<Peer>, outgoing: &mut Vec<Outgoing>) {
    let Some(other) = progress.conversation.peer_of(progress.user) else { return };
    let control = |users, payload, kind| Outgoing {
        users,
        except: Some(Arc::clone(from)),
        envelope: reply("", payload),
        class: Class::Control,
        kind,
        mark: None,
        audience: None,
    };
    if cursor.delivered_grew {
        let ack = Ack {
            seq: cursor.delivered,
            status: AckStatus::Delivered.into(),
            conversation_id: progress.conversation.to_string(),
            server_time: unix_ms(),
            by_user_id: progress.user.get(),
            epoch: cursor.epoch,
            ..Ack::default()
        };
        outgoing.push(control(vec![other], Payload::Ack(ack), FrameKind::Ack));
    }
    if cursor.read_grew {
        let receipt = Receipt {
            conversation_id: progress.conversation.to_string(),
            read_seq: cursor.read,
            by_user_id: progress.user.get(),
            epoch: cursor.epoch,
        };
        // The reader's own other devices learn what is read, too.
        outgoing.push(control(vec![other, progress.user], Payload::Read(receipt), FrameKind::Receipt));
    }
}
