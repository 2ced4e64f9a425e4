//! One call on whichever backend.

use super::{
    Append, Appends, Audience, Change, Conversations, Created, Cursor, Description, EmbeddedStore, History,
    Joined, MemberChange, MembersPage, Page, Progress, RedisStore, Retention, Role, Roster, Span, StoreError,
    Top, Trimmed,
};
#[cfg(test)]
use super::{FlakyStore, MemoryStore};
use crate::types::{ConversationId, GatewayRef, UserId};
use crate::wire::pb::Position;

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
