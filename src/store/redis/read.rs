//! Reading: the index of a user, tops, positions and pages.

use std::collections::HashMap;

use prost::Message;
use redis::{RedisResult, Value};

use super::super::{Page, Span, StoreError, Top, complete, position};
use super::members::parse_entry;
use super::{RedisStore, parse};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Direction, Position, Push};

/// Entries fetched at a time: what a page may fetch beyond its bytes.
const STEP: usize = 32;

pub(super) type Entries = Vec<(String, HashMap<String, Vec<u8>>)>;

impl RedisStore {
    pub(crate) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let exists = |id| {
            let mut command = redis::cmd("HGET");
            command.arg(self.keys.conversation(id, "meta")).arg("top");
            command
        };
        let replies = self.ask(conversations.iter().map(exists).collect()).await?;
        replies.into_iter().map(|reply| Ok(parse::<Option<i64>>(reply)?.is_some_and(|top| top > 0))).collect()
    }

    pub(crate) async fn mutual(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let ask = |id: &ConversationId| {
            let mut command = redis::cmd("HMGET");
            command.arg(self.keys.conversation(id, "meta")).arg("blocked");
            if let ConversationId::P2p(lo, hi) = id {
                command.arg(format!("from:{lo}")).arg(format!("from:{hi}"));
            }
            command
        };
        let replies = self.ask(conversations.iter().map(ask).collect()).await?;
        let is_mutual = |reply| {
            let found: Vec<Option<String>> = parse(reply)?;
            let [blocked, lo, hi] = found.as_slice() else { return Ok(false) };
            Ok(blocked.as_deref().is_none_or(|count| count == "0") && lo.is_some() && hi.is_some())
        };
        replies.into_iter().map(is_mutual).collect()
    }

    pub(crate) async fn tops(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Top>>, StoreError> {
        let replies = self.ask(conversations.iter().map(|id| self.end_of(id)).collect()).await?;
        let read = |(id, reply)| match top(reply) {
            // One that cannot be used is not there, and its neighbours are.
            Err(StoreError::Broken(why)) => {
                tracing::error!(conversation = %id, why, "its top cannot be read");
                Ok(None)
            }
            top => top,
        };
        conversations.iter().zip(replies).map(read).collect()
    }

    fn end_of(&self, conversation: &ConversationId) -> redis::Cmd {
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(conversation, "meta")).arg(&["top", "epoch", "last"]);
        meta
    }

    pub(crate) async fn index(
        &self,
        users: &[UserId],
        since: i64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Vec<ConversationId>>, StoreError> {
        let range = |user: &UserId| {
            let mut range = redis::cmd("ZREVRANGEBYSCORE");
            range.arg(self.keys.conversations(*user)).arg("+inf").arg(since);
            range.arg("LIMIT").arg(offset).arg(limit);
            range
        };
        let replies = match users {
            // Of a connection that has come: many come at once.
            [user] => vec![self.ask_with_others(range(user)).await?],
            users => self.ask(users.iter().map(range).collect()).await?,
        };
        let ids = |reply| {
            let ids: Vec<String> = parse(reply)?;
            Ok(ids.iter().filter_map(|id| ConversationId::parse(id).ok()).collect())
        };
        replies.into_iter().map(ids).collect()
    }

    pub(crate) async fn positions(
        &self,
        user: UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Position>, StoreError> {
        let mut commands = Vec::with_capacity(ids.len() * 3);
        for id in ids {
            let mut cursors = redis::cmd("HMGET");
            let peer = id.peer_of(user).unwrap_or(user);
            cursors.arg(self.keys.conversation(id, "cursors")).arg(user.get()).arg(peer.get());
            let mut member = redis::cmd("HGET");
            member.arg(self.keys.conversation(id, "members")).arg(user.get());
            commands.extend([self.end_of(id), cursors]);
            commands.extend(matches!(id, ConversationId::Group(_)).then_some(member));
        }
        let mut replies = self.ask(commands).await?.into_iter();
        let mut positions = Vec::with_capacity(ids.len());
        for id in ids {
            let (Some(end), Some(cursors)) = (replies.next(), replies.next()) else { break };
            let member = match id {
                ConversationId::Group(_) => replies.next(),
                ConversationId::P2p(..) => None,
            };
            let read = || {
                let since = match (id, member) {
                    (ConversationId::P2p(..), _) => id.peer_of(user).map(|_| 0),
                    (ConversationId::Group(_), None) => None,
                    (ConversationId::Group(_), Some(member)) => parse::<Option<String>>(member)?
                        .map(|entry| parse_entry(&entry).map(|member| member.since_seq))
                        .transpose()?,
                };
                Ok((top(end)?, since, parse::<(Option<String>, Option<String>)>(cursors)?))
            };
            let (top, since, (own, peer)) = match read() {
                Ok(read) => read,
                Err(StoreError::Broken(why)) => {
                    tracing::error!(conversation = %id, why, "left out of the list");
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Touched, but the append or the creation never came, or deleted
            // since: nothing to tell.
            let (Some(top), Some(since)) = (top, since) else { continue };
            let own = parse_cursor(own.as_deref());
            let peer = id.peer_of(user).map(|_| parse_cursor(peer.as_deref())).unwrap_or_default();
            positions.push(position(id, top, since, own, peer));
        }
        Ok(positions)
    }

    pub(crate) async fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, StoreError> {
        let log = self.keys.conversation(conversation, "log");
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(conversation, "meta")).arg(&["top", "epoch"]);
        // One more than asked for tells whether there is more.
        let wanted = span.limit.saturating_add(1);
        let step = wanted.min(STEP);
        let mut replies = self
            .ask(vec![meta.clone(), first(&log), range(&log, span.direction, span.from, step)])
            .await?
            .into_iter();
        let mut reply = || replies.next().ok_or(StoreError::Unavailable);
        let (top, epoch): (Option<i64>, Option<u64>) = parse(reply()?)?;
        let top = top.unwrap_or(0);
        let first_available = first_available(reply()?, top)?;
        let mut entries: Entries = parse(reply()?)?;
        let mut fetched = entries.len();
        let mut asked = step;
        while fetched == asked && entries.len() < wanted && bytes(&entries) <= span.max_bytes {
            let Some(next) = next_from(&entries, span.direction) else { break };
            asked = (wanted - entries.len()).min(STEP);
            let step = vec![meta.clone(), range(&log, span.direction, next, asked)];
            let mut replies = self.ask(step).await?.into_iter();
            let mut reply = || replies.next().ok_or(StoreError::Unavailable);
            let (end, now): (Option<i64>, Option<u64>) = parse(reply()?)?;
            if now != epoch || end.unwrap_or(0) < top {
                // Half of it would be of another history, or of one that has
                // lost its end and goes on by another name.
                return Err(StoreError::Unavailable);
            }
            let more: Entries = parse(reply()?)?;
            fetched = more.len();
            entries.extend(more);
        }
        // What was appended since the top was read may be of a newer epoch.
        entries.retain(|(id, _)| parse_seq(id) <= top);
        let keep = span.fitting(entries.iter().map(size));
        let has_more = entries.len() > keep;
        entries.truncate(keep);
        let epoch = epoch.unwrap_or(0);
        let message = |(id, fields): (String, HashMap<String, Vec<u8>>)| {
            let bytes = fields.get("m").map(Vec::as_slice).unwrap_or_default();
            let push = Push::decode(bytes)
                .map_err(|error| StoreError::Broken(format!("{conversation} {id}: {error}")))?;
            Ok(complete(push, parse_seq(&id), epoch))
        };
        let messages = entries.into_iter().map(message).collect::<Result<_, StoreError>>()?;
        Ok(Page { epoch, messages, top, first_available, has_more })
    }
}

/// Asks for the first entry.
pub(super) fn first(log: &str) -> redis::Cmd {
    let mut first = redis::cmd("XRANGE");
    first.arg(log).arg("-").arg("+").arg("COUNT").arg(1);
    first
}

/// The first entry's seq; where there is none, what comes after `top`.
pub(super) fn first_available(first: RedisResult<Value>, top: i64) -> Result<i64, StoreError> {
    let first = parse::<Vec<(String, Value)>>(first)?.first().map(|(id, _)| parse_seq(id));
    Ok(first.unwrap_or(if top > 0 { top.saturating_add(1) } else { 0 }))
}

/// Where a log ends; `None` = there is no such conversation.
fn top(end: RedisResult<Value>) -> Result<Option<Top>, StoreError> {
    let (seq, epoch, last) = parse::<(Option<i64>, Option<u64>, Option<String>)>(end)?;
    let top = |epoch| Top { epoch, seq: seq.unwrap_or(0), server_msg_id: last.unwrap_or_default() };
    Ok(epoch.map(top))
}

fn range(log: &str, direction: Direction, from: i64, count: usize) -> redis::Cmd {
    let mut range = redis::cmd(if direction == Direction::Forward { "XRANGE" } else { "XREVRANGE" });
    match direction {
        Direction::Forward => range.arg(log).arg(from.max(0)).arg("+"),
        Direction::Backward if from <= 0 => range.arg(log).arg("+").arg("-"),
        Direction::Backward => range.arg(log).arg(from).arg("-"),
    };
    range.arg("COUNT").arg(count);
    range
}

/// Where the next step begins; `None` = there is nothing in that direction.
fn next_from(entries: &Entries, direction: Direction) -> Option<i64> {
    let last = entries.last().map(|(id, _)| parse_seq(id))?;
    match direction {
        Direction::Forward => last.checked_add(1),
        Direction::Backward => Some(last - 1).filter(|next| *next > 0),
    }
}

fn size((_, fields): &(String, HashMap<String, Vec<u8>>)) -> usize {
    fields.get("m").map_or(0, Vec::len)
}

fn bytes(entries: &Entries) -> usize {
    entries.iter().map(size).sum()
}

fn parse_seq(id: &str) -> i64 {
    id.split('-').next().and_then(|seq| seq.parse().ok()).unwrap_or(0)
}

fn parse_cursor(value: Option<&str>) -> (i64, i64) {
    let parse = |value: &str| {
        let (delivered, read) = value.split_once('|')?;
        Some((delivered.parse().ok()?, read.parse().ok()?))
    };
    value.and_then(parse).unwrap_or_default()
}
