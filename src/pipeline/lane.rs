//! One lane of sends: a task that appends a batch at a time.
//!
//! Arrival order within a conversation is kept for free, and under load one
//! round trip carries many messages. While the store is away a batch is tried
//! again until its oldest send has waited long enough; that one gets
//! RETRY_LATER, and with it everything behind it from the same connection to
//! the same conversation.

#[cfg(feature = "planted-bugs")]
mod early;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::send::{Origin, SendRequest, Work};
use super::{Outgoing, Ports};
use crate::hub::{Class, Gaps};
use crate::message::{Mark, message_id};
use crate::store::{Append, Appended, Audience, Refused, StoreError};
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, Refusal, metrics};
use crate::types::{ConversationId, UserId, monotonic_ms, unix_ms};
use crate::wire::pb::{Ack, AckStatus, Envelope, ErrorCode, Header, Push};
use crate::wire::{Payload, error};

pub(super) const LANES: usize = 4;
/// Most sends waiting in one lane.
const LANE_QUEUE: usize = 4_096;
/// Most bytes of messages waiting in all lanes.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Bytes of messages after which a batch takes no more.
const BATCH_BYTES: usize = 4 << 20;
/// Most sends of one batch.
const BATCH: usize = 256;
/// Most sends remembered as perhaps stored, per lane.
const MAX_UNCONFIRMED: usize = 10_000;
/// How long after its first time a repeated send is delivered again, ms.
const REDELIVER_MS: i64 = 300_000;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) -> Vec<mpsc::Sender<Work>> {
    let start = |number| {
        let (sender, work) = mpsc::channel(LANE_QUEUE);
        let lane = Lane {
            number,
            ports: Arc::clone(ports),
            work,
            barriers: Vec::new(),
            unconfirmed: Unconfirmed::default(),
        };
        spawn_core("lane", stop, lane.run());
        sender
    };
    (0..LANES).map(start).collect()
}

/// A send with the append it became.
struct Pending {
    request: SendRequest,
    id: i64,
    append: Append,
}

struct Lane {
    number: usize,
    ports: Arc<Ports>,
    work: mpsc::Receiver<Work>,
    /// Barriers met; passed once what was before them is done.
    barriers: Vec<oneshot::Sender<()>>,
    unconfirmed: Unconfirmed,
}

/// Sends answered with RETRY_LATER that may have been stored all the same:
/// when one comes again as a duplicate it was never delivered.
#[derive(Default)]
struct Unconfirmed(HashSet<(UserId, ConversationId, String)>);

impl Unconfirmed {
    fn key(append: &Append) -> (UserId, ConversationId, String) {
        (append.from, append.conversation.clone(), append.client_msg_id.clone())
    }

    fn remember(&mut self, append: &Append) {
        if self.0.len() >= MAX_UNCONFIRMED {
            // Their receivers find them by pulling.
            self.0.clear();
        }
        self.0.insert(Self::key(append));
    }

    fn forget(&mut self, append: &Append) -> bool {
        !self.0.is_empty() && self.0.remove(&Self::key(append))
    }
}

impl Lane {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.work.recv_many(&mut batch, BATCH).await > 0 {
            self.ports.store.turn().await;
            while batch.len() < BATCH
                && let Ok(work) = self.work.try_recv()
            {
                batch.push(work);
            }
            let mut pending = Vec::with_capacity(batch.len());
            for work in batch.drain(..) {
                match work {
                    Work::Send(request) => pending.push(self.prepare(request)),
                    Work::Barrier(done) => self.barriers.push(done),
                }
            }
            self.work_off(pending).await;
            for done in self.barriers.drain(..) {
                let _ = done.send(());
            }
        }
    }

    /// The id is drawn once: a retry is then a duplicate of itself.
    fn prepare(&self, request: SendRequest) -> Pending {
        let now = unix_ms();
        let id = self.ports.ids.lock().next(now);
        let server_msg_id = id.to_string();
        let draft = &request.draft;
        let push = Push { server_msg_id: server_msg_id.clone(), server_time: now, ..draft.push.clone() };
        let append = Append {
            conversation: draft.conversation.clone(),
            from: UserId::new(draft.push.from_user_id).unwrap_or(UserId::SYSTEM),
            client_msg_id: draft.push.client_msg_id.clone(),
            server_msg_id,
            content_hash: draft.content_hash,
            server_time: now,
            push,
        };
        Pending { request, id, append }
    }

    async fn work_off(&mut self, mut pending: Vec<Pending>) {
        while !pending.is_empty() {
            let mut unknown = Vec::new();
            let mut rest = pending.into_iter().peekable();
            while rest.peek().is_some() {
                let mut bytes = 0;
                // At least one, then as long as it stays a reasonable trip.
                let batch: Vec<Pending> = std::iter::from_fn(|| {
                    let next = rest.next_if(|_| bytes < BATCH_BYTES)?;
                    bytes += next.request.size();
                    Some(next)
                })
                .take(BATCH)
                .collect();
                self.append(batch, &mut unknown).await;
                if !unknown.is_empty() {
                    // What is behind must not overtake it.
                    unknown.extend(rest);
                    break;
                }
            }
            if unknown.is_empty() {
                return;
            }
            pending = self.expire(unknown);
            self.fly(&pending);
            if !pending.is_empty() {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Of this lane's messages these may be stored, and are not delivered.
    fn fly(&self, pending: &[Pending]) {
        self.ports.in_flight.set(self.number, pending.iter().map(|pending| pending.id));
    }

    /// One round trip: what was stored is acknowledged and delivered, what
    /// got no answer is left in `unknown`.
    async fn append(&mut self, batch: Vec<Pending>, unknown: &mut Vec<Pending>) {
        #[cfg(feature = "planted-bugs")]
        self.ports.deliver(&early::early(&batch)).await;
        self.fly(&batch);
        let level = self.ports.store.level();
        metrics().ack_level.set(level);
        let started = Instant::now();
        let appends: Vec<&Append> = batch.iter().map(|pending| &pending.append).collect();
        let mut outcomes = self.ports.store.append(&appends).await;
        metrics().append_seconds.record(started.elapsed());
        let mut outgoing = Vec::with_capacity(batch.len());
        for (pending, outcome) in batch.into_iter().zip(std::mem::take(&mut outcomes.outcomes)) {
            match outcome {
                Ok(appended) => {
                    let undelivered = self.unconfirmed.forget(&pending.append);
                    let audience = outcomes.audiences.get(&pending.append.conversation);
                    outgoing.extend(conclude(
                        pending,
                        appended,
                        level,
                        undelivered,
                        audience,
                        &self.ports.hub.gaps,
                    ));
                }
                Err(StoreError::Unavailable) => unknown.push(pending),
                Err(StoreError::Broken(why)) => {
                    tracing::error!(conversation = %pending.append.conversation, why, "append failed");
                    let error = error(ErrorCode::Internal, "the message could not be stored");
                    pending.request.refuse(Refusal::Internal, error);
                }
            }
        }
        self.deliver(outgoing).await;
        self.fly(unknown);
    }

    async fn deliver(&self, outgoing: Vec<(Outgoing, Instant)>) {
        if outgoing.is_empty() {
            return;
        }
        let (batch, received): (Vec<_>, Vec<_>) = outgoing.into_iter().unzip();
        self.ports.deliver(&batch).await;
        for at in received {
            metrics().delivery_seconds.record(at.elapsed());
        }
    }

    /// Answers RETRY_LATER to what waited too long, and to everything behind
    /// it, also in the queue; returns what may still be tried.
    fn expire(&mut self, unknown: Vec<Pending>) -> Vec<Pending> {
        let mut overdue = HashSet::new();
        let mut left = Vec::with_capacity(unknown.len());
        for pending in unknown {
            let key = pending.request.order_key();
            if overdue.contains(&key) || pending.request.received.elapsed() >= self.ports.send_wait {
                overdue.insert(key);
                self.unconfirmed.remember(&pending.append);
                pending.request.turn_away(Refusal::RetryLater);
            } else {
                left.push(pending);
            }
        }
        if overdue.is_empty() {
            return left;
        }
        while let Ok(work) = self.work.try_recv() {
            match work {
                Work::Send(request) if overdue.contains(&request.order_key()) => {
                    request.turn_away(Refusal::RetryLater);
                }
                Work::Send(request) => left.push(self.prepare(request)),
                Work::Barrier(done) => self.barriers.push(done),
            }
        }
        left
    }
}

/// Answers the sender; returns what is to be delivered: what is new, and a
/// duplicate whose original is `undelivered`.
fn conclude(
    pending: Pending,
    appended: Appended,
    level: u32,
    undelivered: bool,
    audience: Option<&Arc<Audience>>,
    gaps: &Gaps,
) -> Option<(Outgoing, Instant)> {
    let Pending { request, append, .. } = pending;
    let (seq, epoch, server_msg_id, server_time, duplicate) = match appended {
        Appended::Stored { seq, epoch } => {
            (seq, epoch, append.server_msg_id.clone(), append.server_time, false)
        }
        // Our own id comes back: an earlier try of this same send was done.
        Appended::Duplicate { seq, epoch, server_msg_id, server_time } => {
            let duplicate = server_msg_id != append.server_msg_id;
            (seq, epoch, server_msg_id, server_time, duplicate)
        }
        Appended::Conflict => {
            let error =
                error(ErrorCode::Invalid, "clientMsgId was used for other content in this conversation");
            request.refuse(Refusal::Invalid, error);
            return None;
        }
        Appended::Refused(why) => {
            let error = match why {
                Refused::NotFound => error(ErrorCode::NotFound, "conversation not found"),
                Refused::Muted(until) => {
                    error(ErrorCode::Forbidden, format!("you are muted here until {until} (unix ms)"))
                }
                Refused::Blocked => error(ErrorCode::Forbidden, "you are blocked here"),
            };
            request.refuse(Refusal::Forbidden, error);
            return None;
        }
    };
    let ack = Ack {
        client_msg_id: append.client_msg_id.clone(),
        server_msg_id: server_msg_id.clone(),
        seq,
        status: AckStatus::Stored.into(),
        conversation_id: append.push.conversation_id.clone(),
        server_time,
        duplicate,
        epoch,
        level,
        ..Ack::default()
    };
    #[cfg(feature = "planted-bugs")]
    crate::planted::stored(&ack.conversation_id, epoch, seq);
    if duplicate { &metrics().messages_duplicate } else { &metrics().messages_stored }.increment(1);
    let except = match &request.origin {
        Origin::Peer { peer, .. } => Some(Arc::clone(peer)),
        Origin::Api(_) => None,
    };
    let received = request.received;
    let trace_id = match &request.origin {
        Origin::Peer { trace_id, .. } => trace_id.clone(),
        Origin::Api(_) => String::new(),
    };
    let conversation = append.conversation.clone();
    let mark = Arc::new(Mark { conversation, epoch, seq, id: message_id(&server_msg_id) });
    if request.confirm(ack, &mark) {
        gaps.note(&mark.conversation, monotonic_ms(), None);
    }
    // Whoever stored it may have gone before it was delivered: who has it
    // drops it.
    let fresh = unix_ms().saturating_sub(server_time) < REDELIVER_MS;
    if duplicate && !undelivered && !fresh {
        return None;
    }
    let users = match append.conversation {
        ConversationId::P2p(lo, hi) => vec![lo, hi],
        ConversationId::Group(_) => Vec::new(),
    };
    let push = Push { seq, epoch, server_msg_id, server_time, ..append.push };
    let header = Header {
        trace_id,
        client_msg_id: append.client_msg_id,
        timestamp: unix_ms(),
        user_id: push.from_user_id,
        device_id: push.from_device_id.clone(),
        ..Header::default()
    };
    let envelope = Envelope { header: Some(header), payload: Some(Payload::Push(push)) };
    let audience = audience.cloned();
    let (class, kind) = (Class::Push, FrameKind::Push);
    Some((Outgoing { users, except, envelope, class, kind, mark: Some(mark), audience }, received))
}

#[cfg(test)]
mod tests;
