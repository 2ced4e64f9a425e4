//! Reading: the index of a user, pages of a conversation.

use std::collections::HashMap;

use prost::Message;
use redis::Value;

use super::super::{Page, Span, StoreError, Top, complete, position};
use super::{RedisStore, parse};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Direction, Position, Push};

/// Entries fetched at a time: what a page may fetch beyond its bytes.
const STEP: usize = 32;

type Entries = Vec<(String, HashMap<String, Vec<u8>>)>;

impl RedisStore {
    pub(crate) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let exists = |id| {
            let mut command = redis::cmd("EXISTS");
            command.arg(self.keys.conversation(id, "meta"));
            command
        };
        let replies = self.ask(conversations.iter().map(exists).collect()).await?;
        replies.into_iter().map(parse::<bool>).collect()
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
        let replies = self.ask(users.iter().map(range).collect()).await?;
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
        let mut commands = Vec::with_capacity(ids.len() * 2);
        for id in ids {
            let mut meta = redis::cmd("HMGET");
            meta.arg(self.keys.conversation(id, "meta")).arg(&["top", "epoch", "last"]);
            let mut cursors = redis::cmd("HMGET");
            let peer = id.peer_of(user).unwrap_or(user);
            cursors.arg(self.keys.conversation(id, "cursors")).arg(user.get()).arg(peer.get());
            commands.extend([meta, cursors]);
        }
        let mut replies = self.ask(commands).await?.into_iter();
        let mut positions = Vec::with_capacity(ids.len());
        for id in ids {
            let (Some(meta), Some(cursors)) = (replies.next(), replies.next()) else { break };
            let read = || {
                let meta = parse::<(Option<i64>, Option<u64>, Option<String>)>(meta)?;
                Ok((meta, parse::<(Option<String>, Option<String>)>(cursors)?))
            };
            let ((top, epoch, last), (own, peer)) = match read() {
                Ok(read) => read,
                Err(StoreError::Broken(why)) => {
                    tracing::error!(conversation = %id, why, "left out of the list");
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Touched, but the append never came: nothing to tell.
            let (Some(seq), Some(epoch)) = (top, epoch) else { continue };
            let (own, peer) = (parse_cursor(own.as_deref()), parse_cursor(peer.as_deref()));
            let top = Top { epoch, seq, server_msg_id: last.unwrap_or_default() };
            positions.push(position(id, top, 0, own, peer));
        }
        Ok(positions)
    }

    pub(crate) async fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, StoreError> {
        let log = self.keys.conversation(conversation, "log");
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(conversation, "meta")).arg(&["top", "epoch"]);
        let mut first = redis::cmd("XRANGE");
        first.arg(&log).arg("-").arg("+").arg("COUNT").arg(1);
        // One more than asked for tells whether there is more.
        let wanted = span.limit.saturating_add(1);
        let step = wanted.min(STEP);
        let mut replies =
            self.ask(vec![meta, first, range(&log, span.direction, span.from, step)]).await?.into_iter();
        let mut reply = || replies.next().ok_or(StoreError::Unavailable);
        let (top, epoch): (Option<i64>, Option<u64>) = parse(reply()?)?;
        let first_available =
            parse::<Vec<(String, Value)>>(reply()?)?.first().map_or(0, |(id, _)| parse_seq(id));
        let mut entries: Entries = parse(reply()?)?;
        let mut fetched = entries.len();
        let mut asked = step;
        while fetched == asked && entries.len() < wanted && bytes(&entries) <= span.max_bytes {
            let Some(next) = next_from(&entries, span.direction) else { break };
            asked = (wanted - entries.len()).min(STEP);
            let more = self.ask(vec![range(&log, span.direction, next, asked)]).await?.pop();
            let more: Entries = parse(more.ok_or(StoreError::Unavailable)?)?;
            fetched = more.len();
            entries.extend(more);
        }
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
        Ok(Page { epoch, messages, top: top.unwrap_or(0), first_available, has_more })
    }
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
