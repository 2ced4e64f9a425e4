//! Port: the log of every conversation, and who is in it.
//!
//! Two backends and a model of them in memory, one suite (`conformance`).
//! Promises of all:
//! - [`Store::append`] is one atomic step: membership + dedup + seq + append.
//!   Seqs are 1, 2, 3 … without holes. A repeated id of the same sender and
//!   conversation within 7 days gets the original ids; with other content it
//!   is a conflict. Appends of one call are done in order.
//! - An outcome is told once the append is as durable as [`Store::level`]
//!   says.
//! - The members' indexes are written before the first append, and before a
//!   membership.
//! - A timeout means "unknown": the same append again is answered as a
//!   duplicate of itself.
//! - Positions only grow, and stop at the top.
//! - Interest ([`Store::join`]) is registered before the top is read.
//!
//! Called by `pipeline`.

#[cfg(test)]
mod conformance;
mod embedded;
mod end;
#[cfg(test)]
pub(crate) mod flaky;
mod group;
pub(crate) mod ledger;
#[cfg(test)]
mod memory;
mod message;
mod port;
mod redis;
mod retention;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use embedded::{EmbeddedStore, Left};
#[cfg(test)]
pub(crate) use flaky::FlakyStore;
pub(crate) use group::{
    Audience, Change, Changed, Created, Description, History, Joined, Member, MemberChange, MembersPage,
    Role, Roster,
};
#[cfg(test)]
pub(crate) use memory::MemoryStore;
pub(crate) use message::{Append, Appended, Appends, Page, Refused, Span, Top};
pub(crate) use port::Store;
pub(crate) use redis::{Counting, RedisLedger, RedisStore};
pub(crate) use retention::{Keep, Retention, Trimmed};

use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Position, Push};

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
    /// Of a group: who is to hear of it.
    pub audience: Option<Arc<Audience>>,
}

/// A page of a user's conversations, most recently active first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conversations {
    /// Where each stands.
    pub positions: Vec<Position>,
    /// Whether more follow.
    pub has_more: bool,
}

/// Completes a stored message with what the log knows.
fn complete(mut push: Push, seq: i64, epoch: u64) -> Push {
    push.seq = seq;
    push.epoch = epoch;
    push
}

/// What a user is told about one conversation; `since` = he sees what has a
/// larger seq, cursors are (delivered, read).
fn position(
    conversation: &ConversationId,
    top: Top,
    since: i64,
    own: (i64, i64),
    peer: (i64, i64),
) -> Position {
    let unread = top.seq.saturating_sub(own.1.max(since)).max(0);
    Position {
        conversation_id: conversation.text(),
        epoch: top.epoch,
        seq: top.seq,
        read_seq: own.1,
        server_msg_id: top.server_msg_id,
        unread: u32::try_from(unread).unwrap_or(u32::MAX),
        peer_delivered_seq: peer.0,
        peer_read_seq: peer.1,
    }
}

/// The stored form of a message.
fn encode(push: &Push) -> Bytes {
    prost::Message::encode_to_vec(push).into()
}
