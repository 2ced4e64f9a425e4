//! Groups come and go. A group is made in chunks that nobody sees, then at
//! once; it is removed at once, and its members' indexes are cleared behind.
//!
//! Of two creations of one name at a time one is done; the other is told to
//! try again and then finds it. What a crash in between leaves runs out by
//! itself, except for entries in the members' indexes, which name a group
//! that is not there and are passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, Value};

use super::super::{Audience, Created, Description, History, Role, StoreError};
use super::append::dedup_keys;
use super::members::{entry, padded};
use super::{RedisStore, audience, parse};
use crate::redis::{CREATE, Call, DELETE, Link};
use crate::types::{ConversationId, UserId, unix_ms};

/// Members per script call and per round trip: about a millisecond of one.
const CHUNK: usize = 1_000;
/// A creation that does nothing for this long is dead.
const CREATION_MS: i64 = 5_000;
/// What a dead one leaves goes after this.
const STAGED: Duration = Duration::from_secs(60);
/// The epoch of a deleted group is remembered for this long.
const WAS: Duration = Duration::from_secs(30 * 24 * 3600);
/// Within this the indexes of its members are cleared, however often the
/// store goes away meanwhile.
const LEFT: Duration = Duration::from_secs(24 * 3600);

impl RedisStore {
    pub(crate) async fn create(
        &self,
        group: &ConversationId,
        members: &[(UserId, Role)],
        history: History,
    ) -> Result<Created, StoreError> {
        let Link::Up { history: replid, .. } = self.link.borrow().clone() else {
            return Err(StoreError::Unavailable);
        };
        let members: BTreeMap<UserId, Role> = members.iter().copied().collect();
        let nonce = format!("{:016x}", fastrand::u64(..));
        let step = |step: &str| {
            let key = |part: &str| self.keys.conversation(group, part);
            let keys = [key("meta"), key("creating"), key("members"), key("roster")];
            Call::new(&CREATE, &keys).arg(step).arg(&nonce)
        };
        if let Some(there) = self.staged(step("begin").arg(CREATION_MS).into(), group, &members).await? {
            return Ok(there);
        }
        let all: Vec<(UserId, Role)> = members.iter().map(|(user, role)| (*user, *role)).collect();
        for chunk in all.chunks(CHUNK) {
            let mut stage = step("stage").arg(CREATION_MS).arg(STAGED.as_secs());
            for (user, role) in chunk {
                stage = stage.arg(user.get()).arg(padded(*user)).arg(entry(*role, 0, 0));
            }
            // Staged first: whoever clears an index then sees that the user is
            // to stay, or has cleared it before it is written here.
            if let Some(there) = self.staged(stage.into(), group, &members).await? {
                return Ok(there);
            }
            let now = unix_ms();
            let index = chunk.iter().map(|(user, _)| self.name_in_index(*user, group, now)).collect();
            for reply in self.ask(index).await? {
                parse::<Value>(reply)?;
            }
        }
        let history_word = history_word(history);
        let commit = step("commit").arg(members.len()).arg(history_word).arg(&replid);
        let reply: Vec<i64> = self.one(commit.into()).await?;
        match reply.as_slice() {
            [0, epoch, created_at, mver] => Ok(Created::New(Description {
                epoch: u64::try_from(*epoch).unwrap_or_default(),
                top: 0,
                first_available: 0,
                mver: u64::try_from(*mver).unwrap_or_default(),
                members: u64::try_from(members.len()).unwrap_or(u64::MAX),
                created_at: *created_at,
                history,
            })),
            [1, ..] => self.compare(group, &members).await,
            _ => Err(StoreError::Unavailable),
        }
    }

    /// One step before the last; `Some` = the group is there already.
    async fn staged(
        &self,
        step: Cmd,
        group: &ConversationId,
        members: &BTreeMap<UserId, Role>,
    ) -> Result<Option<Created>, StoreError> {
        match self.one::<Vec<i64>>(step).await?.first() {
            Some(0) => Ok(None),
            Some(1) => self.compare(group, members).await.map(Some),
            _ => Err(StoreError::Unavailable),
        }
    }

    async fn compare(
        &self,
        group: &ConversationId,
        wanted: &BTreeMap<UserId, Role>,
    ) -> Result<Created, StoreError> {
        let Some(description) = self.describe(group).await? else { return Err(StoreError::Unavailable) };
        if u64::try_from(wanted.len()).ok() != Some(description.members) {
            return Ok(Created::Other);
        }
        let users: Vec<UserId> = wanted.keys().copied().collect();
        for chunk in users.chunks(CHUNK) {
            if self.entries(group, chunk).await?.iter().any(Option::is_none) {
                return Ok(Created::Other);
            }
        }
        Ok(Created::Same(description))
    }

    pub(crate) async fn delete(&self, group: &ConversationId) -> Result<Option<Audience>, StoreError> {
        let left = self.keys.conversation(group, &format!("left:{:016x}", fastrand::u64(..)));
        let key = |part: &str| self.keys.conversation(group, part);
        let mut keys = vec![key("meta"), key("gateways"), key("roster"), left.clone()];
        keys.extend(["log", "members", "cursors", "blacklist"].map(key));
        keys.extend(dedup_keys(&self.keys.tag(group)));
        let call = Call::new(&DELETE, &keys).arg(WAS.as_secs()).arg(LEFT.as_secs());
        let Some(told) = self.one::<Option<_>>(call.into()).await? else { return Ok(None) };
        if let Err(error) = self.clear_indexes(group, &left).await {
            // They name a group that is not there, and are passed over.
            tracing::warn!(%group, %error, "some members' indexes still name a deleted group");
        }
        Ok(Some(audience(told)))
    }

    async fn clear_indexes(&self, group: &ConversationId, left: &str) -> Result<(), StoreError> {
        loop {
            let mut page = redis::cmd("ZRANGE");
            page.arg(left).arg(0).arg(CHUNK - 1);
            let page: Vec<String> = self.one(page).await?;
            if page.is_empty() {
                return Ok(());
            }
            let users: Vec<UserId> = page.iter().filter_map(|id| super::members::unpadded(id)).collect();
            self.clear_index(group, &users).await?;
            let mut done = redis::cmd("ZREM");
            done.arg(left).arg(page);
            self.one::<i64>(done).await?;
        }
    }

    /// Takes a group out of these users' indexes, unless they are in it again
    /// by now.
    pub(super) async fn clear_index(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<(), StoreError> {
        let clear = |user: &UserId| {
            let mut clear = redis::cmd("ZREM");
            clear.arg(self.keys.conversations(*user)).arg(group.to_string());
            clear
        };
        for reply in self.ask(users.iter().map(clear).collect()).await? {
            parse::<i64>(reply)?;
        }
        let entries = self.entries(group, users).await?;
        let again = users.iter().zip(entries).filter(|(_, entry)| entry.is_some());
        let now = unix_ms();
        let restore = again.map(|(user, _)| self.name_in_index(*user, group, now)).collect();
        for reply in self.ask(restore).await? {
            parse::<Value>(reply)?;
        }
        Ok(())
    }

    /// Names a conversation in a user's index, as active at `now` (unix ms).
    pub(super) fn name_in_index(&self, user: UserId, conversation: &ConversationId, now: i64) -> Cmd {
        let mut name = redis::cmd("ZADD");
        name.arg(self.keys.conversations(user)).arg("GT").arg(now).arg(conversation.text());
        name
    }
}

/// As it is stored.
pub(super) const fn history_word(history: History) -> &'static str {
    match history {
        History::SinceJoining => "since",
        History::Full => "full",
    }
}
