//! A range of a conversation, as one connection may see it.

use std::sync::Arc;

use super::Ports;
use super::history::seen_since;
use super::proof::{current, place_at, prove_named, refuted, resync_required};
use super::pull::frame;
use crate::hub::{Frame, Peer};
use crate::message::{Mark, Place, Proof, message_id};
use crate::store::{Page, Span};
use crate::telemetry::metrics;
use crate::types::ConversationId;
use crate::wire::pb::{Direction, Error, ErrorCode, Push, SyncReq, SyncResp};
use crate::wire::{Payload, decode_message, error};

const MAX_MESSAGES: u32 = 500;
const DEFAULT_MESSAGES: u32 = 50;
/// Most bytes of one answer's messages, where the outbox has room for four
/// times as much.
const MAX_BYTES: usize = 256 * 1024;

/// A request that is answered with something else than a page.
fn refusal(trace_id: &str, request: &SyncReq, error: Error) -> Frame {
    frame(trace_id, Payload::Error(Error { ref_request_id: request.request_id.clone(), ..error }))
}

fn not_found(conversation: &ConversationId) -> Error {
    let conversation_id = conversation.text();
    Error { conversation_id, ..error(ErrorCode::NotFound, "conversation not found") }
}

impl Ports {
    pub(super) async fn sync(
        &self,
        peer: &Arc<Peer>,
        trace_id: &str,
        request: &SyncReq,
    ) -> Result<(), Error> {
        let conversation = ConversationId::parse(&request.conversation_id)
            .map_err(|e| error(ErrorCode::Invalid, format!("conversationId: {e}")))?;
        if request.from_seq < 0 {
            return Err(error(ErrorCode::Invalid, "fromSeq must not be negative"));
        }
        let known = peer.outbox.known_top(&conversation);
        let limit = if request.limit == 0 { DEFAULT_MESSAGES } else { request.limit.min(MAX_MESSAGES) };
        let limit = usize::try_from(limit).unwrap_or(1);
        let room = usize::try_from(self.hub.limits().bytes).unwrap_or(usize::MAX);
        let max_bytes = MAX_BYTES.min(room / 4);
        let forward = request.direction() == Direction::Forward;
        if let Some(page) = self.tail_page(peer, &conversation, request, limit, max_bytes, known) {
            metrics().pulls_tail.increment(1);
            // What is known of and not in the tail is in the log all the same.
            self.answer_sync(peer, trace_id, request, &conversation, page, (0, 0)).await;
            return Ok(());
        }
        let Some(since) = self.visible(peer.identity.user, &conversation).await? else {
            return self.tell_not_found(peer, trace_id, request, &conversation).await;
        };
        // The message before comes along where the client wants proof.
        let proved = forward && request.from_seq > since + 1 && names_history(request);
        let from = match request.direction() {
            Direction::Forward if proved => request.from_seq - 1,
            Direction::Forward => request.from_seq.max(since + 1),
            Direction::Backward => request.from_seq,
        };
        let span =
            Span { from, limit: limit + usize::from(proved), max_bytes, direction: request.direction() };
        // Before the log is read: what came since need not be in it.
        let holdings = peer.outbox.holdings(&conversation);
        let mut page = self.store.page(&conversation, span).await?;
        metrics().pulls_store.increment(1);
        if proved {
            let before = request.from_seq - 1;
            let id = message_id(&request.server_msg_id);
            let place = Place::new(&conversation, request.epoch, before, id);
            if let Some(proof) = prove_named(&place, id, &page).filter(|proof| *proof != Proof::Valid) {
                let current = current(&self.store, &conversation).await?;
                let to = place_at(&conversation, &current);
                let error = refusal(trace_id, request, resync_required(proof, current));
                peer.outbox.refute(&conversation, &to, error, peer.limits());
                return Ok(());
            }
            if page.messages.first().is_some_and(|first| first.seq == before) {
                let has = Place { epoch: page.epoch, ..place };
                peer.outbox.took(&conversation, has);
            }
            page.messages.retain(|message| message.seq >= request.from_seq);
            if page.messages.is_empty() && page.has_more {
                // The proof left no room for what was asked for.
                page = self.store.page(&conversation, Span { from: request.from_seq, limit, ..span }).await?;
            }
        }
        // It may be that this history lacks what the client has.
        let doubtful = |held: &Place| held.epoch != page.epoch || held.seq > page.top;
        for held in holdings.into_iter().filter(doubtful) {
            if self.tell_lost(peer, trace_id, request, &conversation, &held).await? {
                return Ok(());
            }
        }
        let Some(since) = self.still_visible(peer.identity.user, &conversation, since).await? else {
            return self.tell_not_found(peer, trace_id, request, &conversation).await;
        };
        // What was appended between the two reads of the store.
        page.top = page.messages.iter().map(|message| message.seq).fold(page.top, i64::max);
        let page = seen_since(page, since, request.direction());
        self.answer_sync(peer, trace_id, request, &conversation, page, known).await;
        Ok(())
    }

    /// Says that there is no such conversation. Where it was known here, there
    /// may be another of its name by now, which nobody will tell the client of
    /// who has just been told that there is none.
    async fn tell_not_found(
        &self,
        peer: &Peer,
        trace_id: &str,
        request: &SyncReq,
        conversation: &ConversationId,
    ) -> Result<(), Error> {
        let answer = refusal(trace_id, request, not_found(conversation));
        let known = peer.outbox.disown(conversation, answer, peer.limits());
        if known && conversation.is_group() {
            let wanted = (conversation.clone(), peer.identity.user);
            // While the store is away nothing is found: once it is back,
            // everybody is looked up.
            let _ = self.take_in(&[wanted]).await;
        }
        Ok(())
    }

    /// Looks whether the log has what a client has; if not, the client is told,
    /// once, as the answer to its request. Returns whether it was.
    async fn tell_lost(
        &self,
        peer: &Peer,
        trace_id: &str,
        request: &SyncReq,
        conversation: &ConversationId,
        held: &Place,
    ) -> Result<bool, Error> {
        let span = Span { from: held.seq, limit: 1, max_bytes: MAX_BYTES, direction: Direction::Forward };
        let page = self.store.page(conversation, span).await?;
        let Some(proof) = refuted(held, &page) else {
            peer.outbox.proved(held, page.epoch);
            return Ok(false);
        };
        let current = current(&self.store, conversation).await?;
        let to = place_at(conversation, &current);
        let error = || refusal(trace_id, request, resync_required(proof, current));
        Ok(peer.outbox.resync(conversation, held, &to, peer.limits(), error))
    }

    /// A forward page of what a busy group's room keeps, where that is enough
    /// and reaches as far as is known.
    fn tail_page(
        &self,
        peer: &Peer,
        conversation: &ConversationId,
        request: &SyncReq,
        limit: usize,
        max_bytes: usize,
        known: (u64, i64),
    ) -> Option<Page> {
        if request.direction() != Direction::Forward || !conversation.is_group() {
            return None;
        }
        let room = self.hub.rooms.get(conversation)?;
        let since = room.since(peer.identity.user)?;
        let tail = room.tail(request.from_seq).filter(|_| request.from_seq > since)?;
        let (first, last) = (tail.first()?.0.clone(), tail.last()?.0.clone());
        if (last.epoch, last.seq) < known || names_history(request) && request.epoch != first.epoch {
            return None;
        }
        if peer
            .outbox
            .place(conversation)
            .is_some_and(|place| (place.epoch, place.seq) > (last.epoch, last.seq))
        {
            // The room has missed what this client was told of.
            return None;
        }
        let doubtful = |held: &Place| held.epoch != last.epoch || held.seq > last.seq;
        if peer.outbox.holdings(conversation).iter().any(doubtful) {
            // To be proved by the log.
            return None;
        }
        let mut bytes = 0;
        let fitting = tail.iter().take(limit).take_while(|(_, envelope)| {
            bytes += envelope.len();
            bytes <= max_bytes
        });
        let messages: Vec<Push> = fitting.map_while(|(_, envelope)| message_of(envelope)).collect();
        let has_more = messages.len() < tail.len();
        let (epoch, top) = (last.epoch, last.seq);
        (!messages.is_empty()).then_some(Page { epoch, messages, top, first_available: since + 1, has_more })
    }

    async fn answer_sync(
        &self,
        peer: &Peer,
        trace_id: &str,
        request: &SyncReq,
        conversation: &ConversationId,
        page: Page,
        known: (u64, i64),
    ) {
        let Page { epoch, messages, top, first_available, has_more } = page;
        let last = messages.last().filter(|last| last.seq == top).map(|last| message_id(&last.server_msg_id));
        let response = |messages, has_more| SyncResp {
            request_id: request.request_id.clone(),
            conversation_id: request.conversation_id.clone(),
            epoch,
            messages,
            top_seq: top,
            first_available_seq: first_available,
            has_more,
        };
        let newest = messages.iter().max_by_key(|message| message.seq);
        let newest = newest
            .map(|newest| Place::new(conversation, epoch, newest.seq, message_id(&newest.server_msg_id)));
        if has_more || request.direction() != Direction::Forward {
            let page = frame(trace_id, Payload::SyncResp(response(messages, has_more)));
            return peer.outbox.give(conversation, newest, page, peer.limits());
        }
        let id = match last {
            Some(id) => id,
            None => self.id_at_top(conversation, top).await,
        };
        let mark = Mark { conversation: conversation.clone(), epoch, seq: top, id };
        peer.outbox.pulled(request.from_seq, &mark, newest, known, peer.limits(), |more| {
            frame(trace_id, Payload::SyncResp(response(messages, more)))
        });
    }

    /// The id of the last message, or 0 where it is not known.
    async fn id_at_top(&self, conversation: &ConversationId, top: i64) -> i64 {
        let tops = self.store.tops(std::slice::from_ref(conversation)).await;
        let found = tops.ok().and_then(|mut tops| tops.pop().flatten()).filter(|found| found.seq == top);
        found.map_or(0, |found| message_id(&found.server_msg_id))
    }
}

/// Whether a request says what the message before its first one is.
fn names_history(request: &SyncReq) -> bool {
    request.epoch != 0 || !request.server_msg_id.is_empty()
}

/// The message in a frame of ours.
fn message_of(frame: &[u8]) -> Option<Push> {
    match decode_message(frame)?.payload {
        Some(Payload::Push(push)) => Some(push),
        _ => None,
    }
}
