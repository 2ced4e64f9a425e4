//! Who is in a group, who is kept out, and which gateways care.

use redis::{Cmd, RedisResult, Value};

use super::super::{
    Change, Changed, Description, History, Joined, Member, MemberChange, MembersPage, Role, Roster,
    StoreError, Top,
};
use super::creation::history_word;
use super::{RedisStore, Told, audience, parse, read};
use crate::redis::{Call, JOIN, LEAVE, Link, MEMBER};
use crate::types::{ConversationId, GatewayRef, UserId, unix_ms};

impl RedisStore {
    pub(crate) async fn describe(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<Description>, StoreError> {
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(conversation, "meta"));
        meta.arg(&["epoch", "top", "mver", "members", "created", "history"]);
        let first = read::first(&self.keys.conversation(conversation, "log"));
        let [meta, first] = self.some([meta, first]).await?;
        type Meta = (Option<u64>, Option<i64>, Option<u64>, Option<u64>, Option<i64>, Option<String>);
        let (epoch, top, mver, members, created_at, history): Meta = parse(meta)?;
        let is_group = matches!(conversation, ConversationId::Group(_));
        let Some(epoch) = epoch.filter(|_| !is_group || mver.is_some()) else { return Ok(None) };
        let top = top.unwrap_or(0);
        Ok(Some(Description {
            epoch,
            top,
            first_available: read::first_available(first, top)?,
            mver: mver.unwrap_or(0),
            members: if is_group { members.unwrap_or(0) } else { 2 },
            created_at: created_at.unwrap_or(0),
            history: match history.as_deref() {
                Some("full") => History::Full,
                _ => History::SinceJoining,
            },
        }))
    }

    pub(crate) async fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Option<MembersPage>, StoreError> {
        let mut page = redis::cmd("ZRANGEBYLEX");
        page.arg(self.keys.conversation(group, "roster"));
        page.arg(after.map_or_else(|| "-".to_owned(), |after| format!("({}", padded(after))));
        page.arg("+").arg("LIMIT").arg(0).arg(limit.saturating_add(1));
        let [exists, page] = self.some([self.exists(group), page]).await?;
        if !parse::<bool>(exists)? {
            return Ok(None);
        }
        let mut users: Vec<UserId> =
            parse::<Vec<String>>(page)?.iter().filter_map(|id| unpadded(id)).collect();
        let has_more = users.len() > limit;
        users.truncate(limit);
        let entries = self.entries(group, &users).await?;
        // Who has left in between is left out.
        let members = users.into_iter().zip(entries).filter_map(|(user, entry)| Some((user, entry?)));
        Ok(Some(MembersPage { members: members.collect(), has_more }))
    }

    pub(crate) async fn put_member(
        &self,
        group: &ConversationId,
        user: UserId,
        change: MemberChange,
    ) -> Result<Change, StoreError> {
        // The index first, so that he finds the group as soon as he is in it.
        let mut index = redis::cmd("ZADD");
        index.arg(self.keys.conversations(user)).arg("NX").arg(unix_ms()).arg(group.to_string());
        let put = self
            .member_call(group, "put", user)
            .arg(change.role.map_or("", Role::as_str))
            .arg(change.mute_until.map_or_else(String::new, |until| until.max(0).to_string()))
            .arg(change.history.map_or("", history_word));
        let [index, put] = self.some([index, put.into()]).await?;
        let change = parse_change(put)?;
        match change.changed {
            Changed::NotFound | Changed::Blocked => self.clear_index(group, &[user]).await?,
            // Again: a removal at the same time may have cleared it.
            Changed::Joined(_) => {
                parse::<Value>(index)?;
                self.one::<i64>(self.name_in_index(user, group, unix_ms())).await?;
            }
            _ => {}
        }
        Ok(change)
    }

    pub(crate) async fn remove_member(
        &self,
        group: &ConversationId,
        user: UserId,
    ) -> Result<Change, StoreError> {
        let change = parse_change(self.reply(self.member_call(group, "remove", user).into()).await?)?;
        // Also where he was not in it: an earlier try may have come this far.
        self.clear_index(group, &[user]).await?;
        Ok(change)
    }

    pub(crate) async fn block(
        &self,
        conversation: &ConversationId,
        user: UserId,
        blocked: bool,
    ) -> Result<Change, StoreError> {
        let Link::Up { history, .. } = self.link.borrow().clone() else {
            return Err(StoreError::Unavailable);
        };
        let is_group = matches!(conversation, ConversationId::Group(_));
        let call = self
            .member_call(conversation, if blocked { "block" } else { "unblock" }, user)
            .arg(u8::from(is_group))
            .arg(history);
        let change = parse_change(self.reply(call.into()).await?)?;
        if is_group && blocked {
            self.clear_index(conversation, &[user]).await?;
        }
        Ok(change)
    }

    pub(crate) async fn blacklist(&self, conversation: &ConversationId) -> Result<Vec<UserId>, StoreError> {
        let mut list = redis::cmd("SMEMBERS");
        list.arg(self.keys.conversation(conversation, "blacklist"));
        let users: Vec<i64> = self.one(list).await?;
        let mut users: Vec<UserId> = users.into_iter().filter_map(|id| UserId::new(id).ok()).collect();
        users.sort_unstable();
        Ok(users)
    }

    pub(crate) async fn roster(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<Option<Roster>, StoreError> {
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(group, "meta")).arg(&["mver", "members"]);
        let mut gateways = redis::cmd("HGETALL");
        gateways.arg(self.keys.conversation(group, "gateways"));
        // The count of changes is read first: the entries are at least as new.
        let [meta, gateways] = self.some([meta, gateways]).await?;
        let (Some(mver), count) = parse::<(Option<u64>, Option<u64>)>(meta)? else { return Ok(None) };
        let audience = audience((mver, count.unwrap_or(0), parse(gateways)?));
        Ok(Some(Roster { audience, members: self.entries(group, users).await? }))
    }

    pub(crate) async fn join(
        &self,
        gateway: &GatewayRef,
        wanted: &[(ConversationId, UserId)],
    ) -> Result<Vec<Option<Joined>>, StoreError> {
        let join = |(group, user): &(ConversationId, UserId)| {
            let keys = ["meta", "members", "gateways"].map(|part| self.keys.conversation(group, part));
            Call::new(&JOIN, &keys).arg(user.get()).arg(gateway.id.as_str()).arg(gateway.epoch.0).into()
        };
        let replies = self.ask(wanted.iter().map(join).collect()).await?;
        let parse = |((group, _), reply): (&(ConversationId, UserId), _)| {
            type Reply = (String, u64, u64, i64, u64, String);
            match parse::<Option<Reply>>(reply) {
                Ok(None) => Ok(None),
                Ok(Some((member, mver, members, seq, epoch, server_msg_id))) => Ok(Some(Joined {
                    member: parse_entry(&member)?,
                    mver,
                    members,
                    top: Top { epoch, seq, server_msg_id },
                })),
                Err(StoreError::Broken(why)) => {
                    tracing::error!(%group, why, "not joined");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        wanted.iter().zip(replies).map(parse).collect()
    }

    pub(crate) async fn leave(
        &self,
        gateway: &GatewayRef,
        groups: &[ConversationId],
    ) -> Result<(), StoreError> {
        let leave = |group: &ConversationId| {
            let key = self.keys.conversation(group, "gateways");
            Call::new(&LEAVE, &[key]).arg(gateway.id.as_str()).arg(gateway.epoch.0).into()
        };
        for (group, reply) in groups.iter().zip(self.ask(groups.iter().map(leave).collect()).await?) {
            match parse::<i64>(reply) {
                Err(StoreError::Broken(why)) => tracing::error!(%group, why, "not left"),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// The entries of these users, one each; `None` = not a member.
    pub(super) async fn entries(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<Vec<Option<Member>>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = redis::cmd("HMGET");
        entries.arg(self.keys.conversation(group, "members"));
        for user in users {
            entries.arg(user.get());
        }
        let entries: Vec<Option<String>> = self.one(entries).await?;
        entries.into_iter().map(|entry| entry.as_deref().map(parse_entry).transpose()).collect()
    }

    fn exists(&self, group: &ConversationId) -> Cmd {
        let mut exists = redis::cmd("HEXISTS");
        exists.arg(self.keys.conversation(group, "meta")).arg("mver");
        exists
    }

    fn member_call(&self, group: &ConversationId, operation: &str, user: UserId) -> Call {
        let parts = ["meta", "members", "roster", "cursors", "blacklist", "gateways"];
        let keys = parts.map(|part| self.keys.conversation(group, part));
        Call::new(&MEMBER, &keys).arg(operation).arg(user.get()).arg(padded(user))
    }
}

fn parse_change(reply: RedisResult<Value>) -> Result<Change, StoreError> {
    let (outcome, before, after, told) = parse::<(i64, String, String, Told)>(reply)?;
    let changed = match outcome {
        0 => Changed::NotFound,
        1 => Changed::Blocked,
        2 => Changed::Same,
        3 => Changed::Joined(parse_entry(&after)?),
        4 => Changed::Updated { before: parse_entry(&before)?, after: parse_entry(&after)? },
        _ => Changed::Removed,
    };
    Ok(Change { changed, audience: audience(told) })
}

/// A member's entry, as it is stored.
pub(super) fn entry(role: Role, since_seq: i64, mute_until: i64) -> String {
    format!("{}|{since_seq}|{mute_until}", role.as_str())
}

pub(super) fn parse_entry(text: &str) -> Result<Member, StoreError> {
    let parse = || {
        let mut parts = text.split('|');
        let role = Role::parse(parts.next()?)?;
        let since_seq = parts.next()?.parse().ok()?;
        Some(Member { role, since_seq, mute_until: parts.next()?.parse().ok()? })
    };
    parse().ok_or_else(|| StoreError::Broken(format!("not a member's entry: {text:?}")))
}

/// A user id whose order as text is its order as a number.
pub(super) fn padded(user: UserId) -> String {
    format!("{:019}", user.get())
}

pub(super) fn unpadded(text: &str) -> Option<UserId> {
    UserId::new(text.parse().ok()?).ok()
}
