//! The verb *resume*: what a returning client missed.
//!
//! A position is proved by the message at its seq, whatever the epoch says.
//! What is newer is replayed in order, up to a bound for all conversations
//! together; beyond it the client is told to pull.

use std::collections::HashSet;

use super::Ports;
use crate::store::{Page, Span, StoreError};
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
    /// The answers to a client's positions, in their order.
    pub(crate) async fn resume(&self, user: UserId, have: &[Position]) -> Vec<Payload> {
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
                self.replay(user, position, &mut budget).await
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
    ) -> Result<Payload, StoreError> {
        let conversation = match ConversationId::parse(&position.conversation_id) {
            Err(error) => {
                return Ok(refuse(position, ErrorCode::Invalid, &format!("have.conversationId: {error}")));
            }
            Ok(conversation) if conversation.peer_of(user).is_none() => {
                return Ok(refuse(position, ErrorCode::NotFound, "conversation not found"));
            }
            Ok(conversation) => conversation,
        };
        if position.seq < 0 {
            return Ok(refuse(position, ErrorCode::Invalid, "have.seq must not be negative"));
        }
        // The message at the position comes along, as its proof. Nothing more
        // is read than there is room for.
        let limit = if *budget == 0 { 1 } else { MAX_MESSAGES + 1 };
        let span = Span { from: position.seq, limit, max_bytes: *budget, direction: Direction::Forward };
        let page = self.store.page(&conversation, span).await?;
        Ok(answer(position, page, budget))
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

fn answer(position: &Position, page: Page, budget: &mut usize) -> Payload {
    let Page { epoch, mut messages, top, has_more, .. } = page;
    let conversation_id = position.conversation_id.clone();
    if position.seq > 0 {
        let proved = messages
            .first()
            .is_some_and(|m| m.seq == position.seq && m.server_msg_id == position.server_msg_id);
        if !proved {
            let current =
                Position { conversation_id: conversation_id.clone(), epoch, seq: top, ..Position::default() };
            return Payload::Error(Error {
                conversation_id,
                current: Some(current),
                ..crate::wire::error(
                    ErrorCode::ResyncRequired,
                    "this position is not of the history that is here",
                )
            });
        }
        messages.remove(0);
    }
    let bytes: usize = messages.iter().map(prost::Message::encoded_len).sum();
    if has_more || bytes > *budget {
        return Payload::Hint(ConversationHint { conversation_id, top_seq: top, epoch, pull_delay_ms: 0 });
    }
    *budget -= bytes;
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

    fn position(seq: i64, id: &str) -> Position {
        Position { conversation_id: "p2p:1:2".into(), seq, server_msg_id: id.into(), ..Position::default() }
    }

    #[test]
    fn what_is_newer_is_replayed_and_an_end_is_said() {
        let seqs = |payload| match payload {
            Payload::PushBatch(batch) => {
                assert!(batch.replay && !batch.more);
                batch.messages.iter().map(|m| m.seq).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let budget = &mut MAX_BYTES.clone();
        assert_eq!(seqs(answer(&position(3, "s3"), page(3..=5, false), budget)), [4, 5]);
        assert_eq!(seqs(answer(&position(5, "s5"), page(5..=5, false), budget)), [0_i64; 0]);
        assert_eq!(seqs(answer(&position(0, ""), page(1..=2, false), budget)), [1, 2]);
        assert_eq!(seqs(answer(&position(0, ""), Page::default(), budget)), [0_i64; 0]);
    }

    #[test]
    fn another_history_is_told_and_too_much_is_hinted() {
        let budget = &mut MAX_BYTES.clone();
        for (have, here) in [(position(3, "other"), page(3..=5, false)), (position(9, "s9"), Page::default())]
        {
            let Payload::Error(error) = answer(&have, here, budget) else { panic!("no error") };
            assert_eq!(error.code(), ErrorCode::ResyncRequired);
            assert_eq!(error.current.unwrap().conversation_id, "p2p:1:2");
        }
        assert!(matches!(answer(&position(3, "s3"), page(3..=5, true), budget), Payload::Hint(_)));
        assert!(matches!(answer(&position(3, "s3"), page(3..=5, false), &mut 1), Payload::Hint(_)));
    }
}
