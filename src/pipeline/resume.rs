//! The verb *resume*: what a returning client missed.
//!
//! A position is proved by the message at its seq, whatever the epoch says.
//! What is newer is replayed in order, up to a bound for all conversations
//! together; beyond it the client is told to pull.

use std::collections::HashSet;

use super::Ports;
use super::proof::{current, place_at, prove_named, resync_required};
use crate::hub::Start;
use crate::message::{Place, Proof, message_id};
use crate::store::{Page, Span, StoreError};
use crate::telemetry::{HintCause, metrics};
use crate::types::{ConversationId, UserId};
use crate::wire::Payload;
use crate::wire::pb::{ConversationHint, Direction, Error, ErrorCode, Position, PushBatch};

/// Most positions of one `Identify`; the rest is pulled.
pub(crate) const MAX_POSITIONS: usize = 200;
/// Most messages replayed of one conversation.
const MAX_MESSAGES: usize = 500;
/// Most bytes replayed in all, where the outbox has room for twice as much.
const MAX_BYTES: usize = 1 << 20;

impl Ports {
    /// The answers to a client's positions, in their order; `start` learns how
    /// far they bring it.
    pub(crate) async fn resume(&self, user: UserId, have: &[Position], start: &mut Start) -> Vec<Payload> {
        let room = usize::try_from(self.hub.limits().bytes).unwrap_or(usize::MAX);
        let mut budget = MAX_BYTES.min(room / 2);
        let mut seen = HashSet::new();
        let mut answers = Vec::with_capacity(have.len().min(MAX_POSITIONS));
        let mut away = false;
        for position in have.iter().take(MAX_POSITIONS) {
            if !seen.insert(position.conversation_id.as_str()) {
                answers.push(refuse(position, ErrorCode::Invalid, "have names this conversation twice"));
                continue;
            }
            // A store that does not answer is not asked for every position.
            let answer = if away {
                Err(StoreError::Unavailable)
            } else {
                self.replay(user, position, &mut budget, start).await
            };
            away = matches!(answer, Err(StoreError::Unavailable));
            answers.push(answer.unwrap_or_else(|failure| failed(position, failure)));
        }
        answers
    }

    async fn replay(
        &self,
        user: UserId,
        position: &Position,
        budget: &mut usize,
        start: &mut Start,
    ) -> Result<Payload, StoreError> {
        let conversation = match ConversationId::parse(&position.conversation_id) {
            Err(error) => {
                return Ok(refuse(position, ErrorCode::Invalid, &format!("have.conversationId: {error}")));
            }
            Ok(conversation) => conversation,
        };
        let not_found = || Ok(refuse(position, ErrorCode::NotFound, "conversation not found"));
        let Some(since) = self.visible(user, &conversation).await? else { return not_found() };
        if position.seq < 0 {
            return Ok(refuse(position, ErrorCode::Invalid, "have.seq must not be negative"));
        }
        // The message at the position comes along, as its proof; or the last
        // one that is none of his, as the place he goes on behind. Nothing more
        // is read than there is room for.
        let from = position.seq.max(since);
        let limit = if *budget == 0 { 1 } else { MAX_MESSAGES + usize::from(from > 0) };
        let span = Span { from, limit, max_bytes: *budget, direction: Direction::Forward };
        let page = self.store.page(&conversation, span).await?;
        let Some(since) = self.still_visible(user, &conversation, since).await? else { return not_found() };
        let id = message_id(&position.server_msg_id);
        let place = Place::new(&conversation, position.epoch, position.seq, id);
        // What came before the user joined proves nothing.
        let proof = if position.seq <= since { Some(Proof::Valid) } else { prove_named(&place, id, &page) };
        match proof {
            Some(Proof::Valid) => {
                Ok(answer(&conversation, from.max(1), page, budget, start, position.seq.max(since)))
            }
            None => Ok(hint(&conversation, page.epoch, page.top, start)),
            Some(proof) => {
                let current = current(&self.store, &conversation).await?;
                // It goes on behind the end of what is here.
                start.places.push(place_at(&conversation, &current));
                Ok(Payload::Error(resync_required(proof, current)))
            }
        }
    }
}

fn refuse(position: &Position, code: ErrorCode, message: &str) -> Payload {
    let conversation_id = position.conversation_id.clone();
    Payload::Error(Error { conversation_id, ..crate::wire::error(code, message) })
}

fn failed(position: &Position, failure: StoreError) -> Payload {
    match failure {
        StoreError::Unavailable => refuse(position, ErrorCode::RetryLater, "the store does not answer: pull"),
        StoreError::Broken(why) => {
            tracing::error!(conversation = position.conversation_id, why, "resume failed");
            refuse(position, ErrorCode::Internal, "the conversation could not be read")
        }
    }
}

fn hint(conversation: &ConversationId, epoch: u64, top_seq: i64, start: &mut Start) -> Payload {
    metrics().count_hint(HintCause::Replay);
    start.pulling.push((conversation.clone(), epoch, top_seq));
    let conversation_id = conversation.text();
    Payload::Hint(ConversationHint { conversation_id, top_seq, epoch, pull_delay_ms: 0 })
}

/// The replay behind a proved position, `have`, of a page that begins at `from`;
/// or a hint, where it is too much or not all is there.
fn answer(
    conversation: &ConversationId,
    from: i64,
    page: Page,
    budget: &mut usize,
    start: &mut Start,
    have: i64,
) -> Payload {
    let Page { epoch, mut messages, top, has_more, first_available } = page;
    // Where that is trimmed its epoch alone proves it.
    let last = messages.last().filter(|last| last.seq >= have);
    let (seq, id) = last.map_or((have, 0), |last| (last.seq, message_id(&last.server_msg_id)));
    messages.retain(|message| message.seq > have);
    let bytes: usize = messages.iter().map(prost::Message::encoded_len).sum();
    let trimmed = first_available > from.max(have.saturating_add(1));
    if has_more || bytes > *budget || trimmed {
        return hint(conversation, epoch, top, start);
    }
    *budget -= bytes;
    start.places.push(Place::new(conversation, epoch, seq, id));
    let conversation_id = conversation.text();
    Payload::PushBatch(PushBatch { messages, replay: true, more: false, conversation_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::Push;

    fn page(seqs: std::ops::RangeInclusive<i64>, has_more: bool) -> Page {
        let message = |seq| Push { seq, server_msg_id: format!("s{seq}"), ..Push::default() };
        let top = *seqs.end();
        Page { epoch: 9, messages: seqs.map(message).collect(), top, first_available: 1, has_more }
    }

    fn conversation() -> ConversationId {
        ConversationId::parse("p2p:1:2").unwrap()
    }

    fn answered(have: i64, page: Page, budget: usize) -> (Payload, Start) {
        let (mut budget, mut start) = (budget, Start::default());
        let answer = answer(&conversation(), have.max(1), page, &mut budget, &mut start, have);
        (answer, start)
    }

    #[test]
    fn what_is_newer_is_replayed_and_an_end_is_said() {
        for (have, page, replayed, place) in [
            (3, page(3..=5, false), vec![4, 5], 5),
            (5, page(5..=5, false), vec![], 5),
            (0, page(1..=2, false), vec![1, 2], 2),
            (0, Page::default(), vec![], 0),
        ] {
            let (answer, start) = answered(have, page, MAX_BYTES);
            let Payload::PushBatch(batch) = answer else { panic!("{answer:?}") };
            assert!(batch.replay && !batch.more);
            assert_eq!(batch.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), replayed);
            assert_eq!(start.places.iter().map(|place| place.seq).collect::<Vec<_>>(), [place]);
        }
    }

    #[test]
    fn too_much_and_not_enough_is_hinted() {
        let trimmed = Page { first_available: 9, ..page(9..=9, false) };
        let too_long = answered(3, page(3..=5, true), MAX_BYTES);
        for (answer, start) in [too_long, answered(3, page(3..=5, false), 1), answered(3, trimmed, MAX_BYTES)]
        {
            assert!(matches!(answer, Payload::Hint(_)), "{answer:?}");
            assert!(start.places.is_empty());
            assert_eq!(start.pulling.len(), 1);
        }
    }
}
