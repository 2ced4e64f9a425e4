//! Port: the log of every conversation.
//!
//! Two backends, one suite (`conformance`). Promises of both:
//! - [`Store::append`] is one atomic step: dedup + seq + append. Seqs are
//!   1, 2, 3 … without holes. A repeated id of the same sender and
//!   conversation within 7 days gets the original ids; with other content it
//!   is a conflict. Appends of one call are done in order.
//! - The members' indexes are written before the first append.
//! - A timeout means "unknown": the same append again is answered as a
//!   duplicate of itself.
//! - Positions only grow, and stop at the top.
//!
//! Called by `pipeline`.

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod flaky;
mod memory;
mod redis;

use bytes::Bytes;

#[cfg(test)]
pub(crate) use flaky::FlakyStore;
pub(crate) use memory::MemoryStore;
pub(crate) use redis::RedisStore;

use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Direction, Position, Push};

/// The backend failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer: whether it was done is unknown, and it may be tried again.
    #[error("the store does not answer")]
    Unavailable,
    /// The store answered with something it should not; not worth retrying.
    #[error("the store is broken: {0}")]
    Broken(String),
}

/// One message to append.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    /// Where.
    pub conversation: ConversationId,
    /// Who sends; with `client_msg_id` it names the message.
    pub from: UserId,
    /// The sender's name of the message.
    pub client_msg_id: String,
    /// The id the message gets, unless it is a duplicate.
    pub server_msg_id: String,
    /// Digest of the content: the same id with another one is a conflict.
    pub content_hash: u64,
    /// Unix ms.
    pub server_time: i64,
    /// The message, without its seq and epoch.
    pub push: Push,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is in the log.
    Stored {
        /// Its position.
        seq: i64,
        /// The conversation's history.
        epoch: u64,
    },
    /// It was already.
    Duplicate {
        /// The original's position.
        seq: i64,
        /// The conversation's history.
        epoch: u64,
        /// The original's id.
        server_msg_id: String,
        /// The original's time, unix ms.
        server_time: i64,
    },
    /// The same id was used for other content.
    Conflict,
}

/// What a user's device has, or has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Received up to; 0 = no news.
    pub delivered: i64,
    /// Read up to; 0 = no news.
    pub read: i64,
}

/// A user's positions after an update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The conversation's history.
    pub epoch: u64,
    /// Received up to.
    pub delivered: i64,
    /// Read up to.
    pub read: i64,
    /// Whether `delivered` grew.
    pub delivered_grew: bool,
    /// Whether `read` grew.
    pub read_grew: bool,
}

/// A page of a user's conversations, most recently active first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conversations {
    /// Where each stands.
    pub positions: Vec<Position>,
    /// Whether more follow.
    pub has_more: bool,
}

/// What to read of a conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// The first seq, inclusive; backward from 0 = from the top.
    pub from: i64,
    /// Most messages.
    pub limit: usize,
    /// Most bytes of messages; one message is given even if it is longer.
    pub max_bytes: usize,
    /// Which way.
    pub direction: Direction,
}

impl Span {
    /// How many of messages with these sizes it takes.
    fn fitting(&self, sizes: impl Iterator<Item = usize>) -> usize {
        let mut bytes = 0_usize;
        let fits = |size: &usize| {
            bytes = bytes.saturating_add(*size);
            bytes <= self.max_bytes
        };
        let mut sizes = sizes.take(self.limit).peekable();
        let any = sizes.peek().is_some();
        sizes.take_while(fits).count().max(usize::from(any))
    }
}

/// A page of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    /// The conversation's history; 0 = it has none yet.
    pub epoch: u64,
    /// Ascending when forward, descending when backward.
    pub messages: Vec<Push>,
    /// The last seq.
    pub top: i64,
    /// The first seq that is still there.
    pub first_available: i64,
    /// Whether the direction holds more.
    pub has_more: bool,
}

/// The backends.
#[derive(Debug)]
pub(crate) enum Store {
    /// In this process, gone with it.
    Memory(MemoryStore),
    /// In Redis.
    Redis(RedisStore),
    /// In this process, and failing as told.
    #[cfg(test)]
    Flaky(FlakyStore),
}

impl Store {
    /// The level at which an append is confirmed right now: 1 in memory, 2 on
    /// disk, 3 also on a replica.
    #[must_use]
    pub(crate) fn level(&self) -> u32 {
        match self {
            Self::Memory(_) => 1,
            #[cfg(test)]
            Self::Flaky(_) => 1,
            Self::Redis(store) => store.level(),
        }
    }

    /// Appends in order; one outcome each. An error on one conversation leaves
    /// the others.
    pub(crate) async fn append(&self, batch: &[&Append]) -> Vec<Result<Appended, StoreError>> {
        match self {
            Self::Memory(store) => store.append(batch).into_iter().map(Ok).collect(),
            Self::Redis(store) => store.append(batch).await,
            #[cfg(test)]
            Self::Flaky(store) => store.append(batch),
        }
    }

    /// Raises positions; one cursor each, `None` where the conversation cannot
    /// be used.
    pub(crate) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Option<Cursor>>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.advance(batch).into_iter().map(Some).collect()),
            Self::Redis(store) => store.advance(batch).await,
            #[cfg(test)]
            Self::Flaky(store) => Ok(store.inner.advance(batch).into_iter().map(Some).collect()),
        }
    }

    /// Which of these conversations have a message.
    pub(crate) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.known(conversations)),
            Self::Redis(store) => store.known(conversations).await,
            #[cfg(test)]
            Self::Flaky(store) => Ok(store.inner.known(conversations)),
        }
    }

    /// A user's conversations from `offset` on.
    pub(crate) async fn conversations(
        &self,
        user: UserId,
        offset: usize,
        limit: usize,
    ) -> Result<Conversations, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.conversations(user, offset, limit)),
            Self::Redis(store) => store.conversations(user, offset, limit).await,
            #[cfg(test)]
            Self::Flaky(store) => Ok(store.inner.conversations(user, offset, limit)),
        }
    }

    /// The messages of a span.
    pub(crate) async fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.page(conversation, span)),
            Self::Redis(store) => store.page(conversation, span).await,
            #[cfg(test)]
            Self::Flaky(store) => Ok(store.inner.page(conversation, span)),
        }
    }
}

/// Completes a stored message with what the log knows.
fn complete(mut push: Push, seq: i64, epoch: u64) -> Push {
    push.seq = seq;
    push.epoch = epoch;
    push
}

/// What `user` is told about one conversation.
fn position(
    conversation: &ConversationId,
    epoch: u64,
    top: i64,
    last_id: String,
    own: (i64, i64),
    peer: (i64, i64),
) -> Position {
    Position {
        conversation_id: conversation.to_string(),
        epoch,
        seq: top,
        read_seq: own.1,
        server_msg_id: last_id,
        unread: u32::try_from(top.saturating_sub(own.1).max(0)).unwrap_or(u32::MAX),
        peer_delivered_seq: peer.0,
        peer_read_seq: peer.1,
    }
}

/// The stored form of a message.
fn encode(push: &Push) -> Bytes {
    prost::Message::encode_to_vec(push).into()
}
