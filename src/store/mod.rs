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
mod redis;

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
pub(crate) use redis::{Counting, RedisLedger, RedisStore};

use crate::types::{ConversationId, GatewayRef, UserId};
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

/// How long messages of one kind of conversation are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Oldest age, ms; `None` = any.
    pub age_ms: Option<i64>,
    /// Most messages; `None` = any number.
    pub count: Option<i64>,
}

/// How long messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Between two users.
    pub p2p: Keep,
    /// In groups.
    pub group: Keep,
}

impl Retention {
    /// What holds for this conversation.
    #[must_use]
    pub(crate) const fn of(&self, conversation: &ConversationId) -> Keep {
        match conversation {
            ConversationId::P2p(..) => self.p2p,
            ConversationId::Group(_) => self.group,
        }
    }
}

/// What one step of trimming did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Messages removed.
    pub messages: u64,
    /// Conversations looked at.
    pub conversations: u64,
    /// Where the next step goes on; empty = the round is complete.
    pub cursor: String,
}

/// A page of a user's conversations, most recently active first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conversations {
    /// Where each stands.
    pub positions: Vec<Position>,
    /// Whether more follow.
    pub has_more: bool,
}

/// The backends.
#[derive(Debug)]
pub(crate) enum Store {
    /// In this process's own files.
    Embedded(EmbeddedStore),
    /// In Redis.
    Redis(RedisStore),
    /// In this process, gone with it.
    #[cfg(test)]
    Memory(MemoryStore),
    /// The same, and failing as told.
    #[cfg(test)]
    Flaky(FlakyStore),
}

/// The same call on whichever backend; memory answers at once.
macro_rules! on {
    ($self:expr, $store:ident => $memory:expr, $remote:expr) => {
        match $self {
            #[cfg(test)]
            Self::Memory($store) => $memory,
            #[cfg(test)]
            Self::Flaky(flaky) => {
                flaky.ask().await?;
                let done = {
                    let $store = &flaky.inner;
                    $memory
                };
                flaky.answer().await?;
                done
            }
            Self::Embedded($store) => $remote,
            Self::Redis($store) => $remote,
        }
    };
}

impl Store {
    /// The level at which an append is confirmed right now: 1 in memory, 2 on
    /// disk, 3 also on a replica.
    #[must_use]
    pub(crate) fn level(&self) -> u32 {
        match self {
            Self::Embedded(_) => 2,
            #[cfg(test)]
            Self::Memory(_) | Self::Flaky(_) => 1,
            Self::Redis(store) => store.level(),
        }
    }

    /// Waits until a batch that is handed over now would be begun soon: what
    /// comes meanwhile can go with it. At most 50 ms, and not at all where one
    /// batch does not wait for another.
    pub(crate) async fn turn(&self) {
        if let Self::Embedded(store) = self {
            store.turn().await;
        }
    }

    /// Appends in order; one outcome each.
    pub(crate) async fn append(&self, batch: &[&Append]) -> Appends {
        match self {
            Self::Embedded(store) => store.append(batch).await,
            #[cfg(test)]
            Self::Memory(store) => store.append(batch),
            Self::Redis(store) => store.append(batch).await,
            #[cfg(test)]
            Self::Flaky(store) => store.append(batch).await,
        }
    }

    /// Raises positions; one cursor each, `None` where the conversation cannot
    /// be used or the user is not in it.
    pub(crate) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Option<Cursor>>, StoreError> {
        #[cfg(test)]
        if let Self::Flaky(store) = self {
            store.count_advanced(batch.len());
        }
        on!(self, store => Ok(store.advance(batch)), store.advance(batch).await)
    }

    /// Which of these conversations have a message.
    pub(crate) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        on!(self, store => Ok(store.known(conversations)), store.known(conversations).await)
    }

    /// In which of these conversations of two both have written, and neither
    /// keeps the other out.
    pub(crate) async fn mutual(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        on!(self, store => Ok(store.mutual(conversations)), store.mutual(conversations).await)
    }

    /// Where these logs end; `None` = there is no such conversation.
    pub(crate) async fn tops(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Top>>, StoreError> {
        on!(self, store => Ok(store.tops(conversations)), store.tops(conversations).await)
    }

    /// The messages of a span. What a reader may see of it is the caller's to
    /// decide.
    pub(crate) async fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, StoreError> {
        on!(self, store => Ok(store.page(conversation, span)), store.page(conversation, span).await)
    }

    /// For each user, the conversations of his index with activity at or
    /// after `since` (unix ms), most recent first, at most `limit` from
    /// `offset` on.
    pub(crate) async fn index(
        &self,
        users: &[UserId],
        since: i64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Vec<ConversationId>>, StoreError> {
        on!(self, store => Ok(store.index(users, since, offset, limit)),
            store.index(users, since, offset, limit).await)
    }

    /// Where `user` stands in these conversations, in their order; left out
    /// are those that are not there or not his.
    pub(crate) async fn positions(
        &self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<Vec<Position>, StoreError> {
        on!(self, store => Ok(store.positions(user, conversations)),
            store.positions(user, conversations).await)
    }

    /// A page of a user's conversations from `offset` on.
    pub(crate) async fn conversations(
        &self,
        user: UserId,
        offset: usize,
        limit: usize,
    ) -> Result<Conversations, StoreError> {
        let mut ids =
            self.index(&[user], 0, offset, limit.saturating_add(1)).await?.pop().unwrap_or_default();
        let has_more = ids.len() > limit;
        ids.truncate(limit);
        Ok(Conversations { positions: self.positions(user, &ids).await?, has_more })
    }

    /// Makes a group. Its members' indexes name it first.
    pub(crate) async fn create(
        &self,
        group: &ConversationId,
        members: &[(UserId, Role)],
        history: History,
    ) -> Result<Created, StoreError> {
        on!(self, store => Ok(store.create(group, members, history)),
            store.create(group, members, history).await)
    }

    /// Removes a group with everything in it; `None` = there is none.
    pub(crate) async fn delete(&self, group: &ConversationId) -> Result<Option<Audience>, StoreError> {
        on!(self, store => Ok(store.delete(group)), store.delete(group).await)
    }

    /// A conversation, from outside; `None` = there is none.
    pub(crate) async fn describe(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<Description>, StoreError> {
        on!(self, store => Ok(store.describe(conversation)), store.describe(conversation).await)
    }

    /// Members with a larger id than `after`; `None` = there is no such group.
    pub(crate) async fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Option<MembersPage>, StoreError> {
        on!(self, store => Ok(store.members(group, after, limit)),
            store.members(group, after, limit).await)
    }

    /// Adds or changes a member.
    pub(crate) async fn put_member(
        &self,
        group: &ConversationId,
        user: UserId,
        change: MemberChange,
    ) -> Result<Change, StoreError> {
        on!(self, store => Ok(store.put_member(group, user, change)),
            store.put_member(group, user, change).await)
    }

    /// Removes a member.
    pub(crate) async fn remove_member(
        &self,
        group: &ConversationId,
        user: UserId,
    ) -> Result<Change, StoreError> {
        on!(self, store => Ok(store.remove_member(group, user)), store.remove_member(group, user).await)
    }

    /// Puts a user on a conversation's blacklist, which removes him from a
    /// group, or takes him off it.
    pub(crate) async fn block(
        &self,
        conversation: &ConversationId,
        user: UserId,
        blocked: bool,
    ) -> Result<Change, StoreError> {
        on!(self, store => Ok(store.block(conversation, user, blocked)),
            store.block(conversation, user, blocked).await)
    }

    /// Who is on a conversation's blacklist, by user id.
    pub(crate) async fn blacklist(&self, conversation: &ConversationId) -> Result<Vec<UserId>, StoreError> {
        on!(self, store => Ok(store.blacklist(conversation)), store.blacklist(conversation).await)
    }

    /// Entries of these users; `None` = there is no such group.
    pub(crate) async fn roster(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<Option<Roster>, StoreError> {
        on!(self, store => Ok(store.roster(group, users)), store.roster(group, users).await)
    }

    /// Registers that `gateway` has these members online, then reads what it
    /// needs to serve them; `None` = not a member, and nothing is registered.
    pub(crate) async fn join(
        &self,
        gateway: &GatewayRef,
        wanted: &[(ConversationId, UserId)],
    ) -> Result<Vec<Option<Joined>>, StoreError> {
        on!(self, store => Ok(store.join(gateway, wanted)), store.join(gateway, wanted).await)
    }

    /// Takes the interest of `gateway`, in this epoch, back.
    pub(crate) async fn leave(
        &self,
        gateway: &GatewayRef,
        groups: &[ConversationId],
    ) -> Result<(), StoreError> {
        on!(self, store => { store.leave(gateway, groups); Ok(()) }, store.leave(gateway, groups).await)
    }

    /// One step of removing what is past its time at `now` (unix ms), from
    /// `cursor` on (empty = from the start).
    pub(crate) async fn trim(
        &self,
        now: i64,
        retention: &Retention,
        cursor: &str,
    ) -> Result<Trimmed, StoreError> {
        on!(self, store => Ok(store.trim(now, retention, cursor)), store.trim(now, retention, cursor).await)
    }
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
        conversation_id: conversation.to_string(),
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
