//! The verb *send*: append, acknowledge, deliver.
//!
//! Conversations are spread over lanes ([`super::lane`]); a send goes to its
//! conversation's, and is answered from there.

use std::sync::Arc;

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::Pipeline;
use crate::hub::{Frame, Peer};
use crate::message::{Draft, Mark};
use crate::telemetry::{FrameKind, Refusal, metrics};
use crate::types::{ConnId, ConversationId, fnv1a64, monotonic_ms, unix_ms};
use crate::wire::pb::{Ack, AckStatus, Error, ErrorCode};
use crate::wire::{Payload, encode, error, reply};

/// What a client is told to wait after RETRY_LATER. Tests have many of them.
const RETRY_AFTER_MS: u32 = if cfg!(test) { 5 } else { 1_000 };

/// Who wants to know what became of a send.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A connection: it gets an `Ack` with this trace id.
    Peer {
        /// The connection.
        peer: Arc<Peer>,
        /// Copied into the answer's header.
        trace_id: String,
    },
    /// The backend, through the admin API.
    Api(oneshot::Sender<SendOutcome>),
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SendOutcome {
    /// It is in the log, with these ids; `duplicate` = it was before.
    Stored(Ack),
    /// It is not, or may not be.
    Refused(Error),
}

/// A checked message and where to answer.
#[derive(Debug)]
pub(crate) struct SendRequest {
    /// The message.
    pub draft: Draft,
    /// Where to answer.
    pub origin: Origin,
    /// When it came.
    pub received: Instant,
    /// Its share of the bytes that sends may hold, given back with it.
    room: Option<OwnedSemaphorePermit>,
}

impl SendRequest {
    /// A send that has just come.
    #[must_use]
    pub(crate) fn new(draft: Draft, origin: Origin) -> Self {
        Self { draft, origin, received: Instant::now(), room: None }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        self.draft.push.encoded_len()
    }

    /// Order is kept per connection and conversation.
    pub(super) fn order_key(&self) -> (Option<ConnId>, ConversationId) {
        let conn = match &self.origin {
            Origin::Peer { peer, .. } => Some(peer.identity.conn),
            Origin::Api(_) => None,
        };
        (conn, self.draft.conversation.clone())
    }

    /// Answers that it is refused, and counts why.
    pub(super) fn refuse(self, why: Refusal, error: Error) {
        metrics().count_refused(why);
        self.answer(error);
    }

    /// Answers that it may be tried again, and has whatever comes from the same
    /// connection until then answered so, too.
    pub(super) fn turn_away(self, why: Refusal) {
        if let Origin::Peer { peer, .. } = &self.origin {
            peer.shed(monotonic_ms() + u64::from(RETRY_AFTER_MS));
        }
        self.retry_later(why);
    }

    /// Answers that it may be tried again.
    fn retry_later(self, why: Refusal) {
        let message = match why {
            Refusal::QueueFull => "too many messages are waiting for the store",
            _ => "the store did not confirm in time this message, or one before it",
        };
        let mut error = error(ErrorCode::RetryLater, message);
        error.retry_after_ms = RETRY_AFTER_MS;
        self.refuse(why, error);
    }

    /// Answers that it is not stored, whoever asked.
    fn answer(self, error: Error) {
        metrics().messages_in_flight.decrement(1.0);
        match self.origin {
            // Whoever asked over HTTP may have gone.
            Origin::Api(asker) => drop(asker.send(SendOutcome::Refused(error))),
            Origin::Peer { peer, trace_id } => {
                let ack = failed(self.draft.push.client_msg_id, self.draft.push.conversation_id, error);
                peer.send_answered();
                peer.answer(frame(&trace_id, ack));
            }
        }
    }

    /// Answers that it is stored, as `mark`; returns whether that is to be held
    /// against the log again: its sender was given a newer history.
    pub(super) fn confirm(self, ack: Ack, mark: &Mark) -> bool {
        metrics().messages_in_flight.decrement(1.0);
        match self.origin {
            Origin::Api(asker) => {
                let _ = asker.send(SendOutcome::Stored(ack));
                false
            }
            Origin::Peer { peer, trace_id } => {
                peer.send_answered();
                peer.acknowledge(frame(&trace_id, ack), mark)
            }
        }
    }
}

fn frame(trace_id: &str, ack: Ack) -> Frame {
    Frame::control(encode(&reply(trace_id, Payload::Ack(ack))), FrameKind::Ack)
}

/// The `Ack` of a refused send.
#[must_use]
pub(crate) fn failed(client_msg_id: String, conversation_id: String, mut error: Error) -> Ack {
    error.ref_client_msg_id.clone_from(&client_msg_id);
    error.conversation_id.clone_from(&conversation_id);
    Ack {
        client_msg_id,
        conversation_id,
        status: AckStatus::Failed.into(),
        server_time: unix_ms(),
        error: Some(error),
        ..Ack::default()
    }
}

/// What a lane is given.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "barriers are rare; a box for each send is not")]
pub(super) enum Work {
    Send(SendRequest),
    /// Somebody waits until all before it is done.
    Barrier(oneshot::Sender<()>),
}

impl Pipeline {
    /// Waits until every send queued so far is answered and delivered, and
    /// every item for other gateways is published.
    pub(crate) async fn drained(&self) {
        for lane in &self.lanes {
            let (done, all) = oneshot::channel();
            if lane.send(Work::Barrier(done)).await.is_ok() {
                let _ = all.await;
            }
        }
        self.ports.bus.flush().await;
    }

    /// Queues a send. Without room it is answered with RETRY_LATER at once.
    /// After that answer, whatever its cause, so is everything from the same
    /// connection until the time it was told to wait: it was on its way
    /// already, and must not overtake.
    pub(crate) fn send(&self, mut request: SendRequest) {
        metrics().messages_in_flight.increment(1.0);
        let now_ms = monotonic_ms();
        let shedding = matches!(&request.origin, Origin::Peer { peer, .. } if peer.is_shedding(now_ms));
        let size = u32::try_from(request.size()).unwrap_or(u32::MAX);
        request.room = Arc::clone(&self.send_room).try_acquire_many_owned(size).ok();
        let lane = self.lanes.get(lane_of(&request.draft.push.conversation_id, self.lanes.len()));
        let turned_away = match lane.filter(|_| !shedding && request.room.is_some()) {
            Some(lane) => {
                match lane.try_send(Work::Send(request)).map_err(mpsc::error::TrySendError::into_inner) {
                    Err(Work::Send(request)) => Some(request),
                    Ok(()) | Err(Work::Barrier(_)) => None,
                }
            }
            None => Some(request),
        };
        if let Some(request) = turned_away {
            if shedding {
                request.retry_later(Refusal::RetryLater);
            } else {
                request.turn_away(Refusal::QueueFull);
            }
        }
    }
}

/// Which of `lanes` a conversation's sends go to.
fn lane_of(conversation: &str, lanes: usize) -> usize {
    let hash = fnv1a64(conversation.as_bytes());
    // Alone, its low bits are those of the letters: users 2n and 2n + 1, all
    // of them, would share a lane. Its high bits hardly know the last letters.
    let folded = (hash ^ (hash >> 32)) % u64::try_from(lanes).unwrap_or(u64::MAX).max(1);
    usize::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::lane_of;

    #[test]
    fn conversations_of_all_kinds_are_spread_over_the_lanes() {
        const CONVERSATIONS: u64 = 1_000;
        const LANES: usize = 4;
        let kinds: [fn(u64) -> String; 5] = [
            |n| format!("p2p:{}:{}", 1_000_000 + 2 * n, 1_000_001 + 2 * n),
            |n| format!("p2p:{}:{}", 1_000_001 + 2 * n, 1_000_002 + 2 * n),
            |n| format!("p2p:{n}:{}", 1_000_000 + 7 * n),
            |n| format!("p2p:42:{}", 100 + n),
            |n| format!("g:room-{n}"),
        ];
        for kind in kinds {
            let mut counts = [0; LANES];
            (0..CONVERSATIONS).for_each(|n| counts[lane_of(&kind(n), LANES)] += 1);
            assert!(counts.iter().all(|count| *count >= 150), "{}: {counts:?}", kind(0));
        }
    }
}
