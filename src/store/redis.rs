//! The log in Redis: a stream per conversation with ids `<seq>-0`, one
//! single-slot script per append, everything of one call in one round trip.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::watch;

use super::{
    Append, Appended, Conversations, Cursor, Page, Progress, StoreError, complete, encode, position,
};
use crate::redis::{APPEND, Call, Client, Keys, Link, POSITION, RedisError};
use crate::types::{ConversationId, UserId, unix_ms};
use crate::wire::pb::{Direction, Push};

/// An id is remembered for at least this long and at most twice as long: two
/// periods are looked at.
const DEDUP_PERIOD_S: i64 = 7 * 24 * 3600;
/// A user's index is touched at most this often per conversation.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// Conversations whose last touch is remembered.
const TOUCHES: usize = 100_000;

/// One gateway's store in Redis.
#[derive(Debug)]
pub(crate) struct RedisStore {
    client: Client,
    keys: Keys,
    link: watch::Receiver<Link>,
    touched: Mutex<HashMap<ConversationId, Instant>>,
}

impl RedisStore {
    /// Over `client`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys) -> Self {
        let link = client.link();
        Self { client, keys, link, touched: Mutex::default() }
    }

    pub(super) fn level(&self) -> u32 {
        match *self.link.borrow() {
            Link::Up { level, .. } => level,
            Link::Down => 1,
        }
    }

    pub(super) async fn append(&self, batch: &[Append]) -> Vec<Result<Appended, StoreError>> {
        let mut commands = Vec::with_capacity(batch.len());
        let mut at = Vec::with_capacity(batch.len());
        let mut touches = Vec::new();
        for append in batch {
            if self.due(&append.conversation) && !touches.contains(&append.conversation) {
                commands.extend(self.touch(&append.conversation));
                touches.push(append.conversation.clone());
            }
            at.push(commands.len());
            commands.push(self.append_call(append));
        }
        let mut replies = match self.client.pipeline(commands).await {
            Ok(replies) => replies.into_iter().map(Some).collect::<Vec<_>>(),
            Err(_) => return batch.iter().map(|_| Err(StoreError::Unavailable)).collect(),
        };
        let outcomes: Vec<_> = at
            .into_iter()
            .map(|index| {
                let reply = replies.get_mut(index).and_then(Option::take);
                parse_appended(reply.ok_or(StoreError::Unavailable)?)
            })
            .collect();
        // Left untouched when anything failed: touching again costs nothing.
        if replies.into_iter().flatten().all(|reply| reply.and_then(Value::extract_error).is_ok()) {
            self.remember(touches);
        }
        outcomes
    }

    fn append_call(&self, append: &Append) -> redis::Cmd {
        let period = unix_ms() / 1000 / DEDUP_PERIOD_S;
        let key = |part: &str| self.keys.conversation(&append.conversation, part);
        let keys =
            [key("log"), key("meta"), key(&format!("dedup:{period}")), key(&format!("dedup:{}", period - 1))];
        Call::new(&APPEND, &keys)
            .arg(format!("{}:{}", append.from, append.client_msg_id))
            .arg(format!("{:016x}", append.content_hash))
            .arg(&append.server_msg_id)
            .arg(append.server_time)
            .arg(&encode(&append.push)[..])
            .arg(2 * DEDUP_PERIOD_S)
            .into()
    }

    /// Written before the append, so that a receiver who was away finds the
    /// conversation.
    fn touch(&self, conversation: &ConversationId) -> Vec<redis::Cmd> {
        let ConversationId::P2p(lo, hi) = *conversation else { return Vec::new() };
        let touch = |user| {
            let mut command = redis::cmd("ZADD");
            command.arg(self.keys.conversations(user)).arg("GT").arg(unix_ms()).arg(conversation.to_string());
            command
        };
        [lo, hi].map(touch).into()
    }

    fn due(&self, conversation: &ConversationId) -> bool {
        self.touched.lock().get(conversation).is_none_or(|at| at.elapsed() >= TOUCH_EVERY)
    }

    fn remember(&self, conversations: Vec<ConversationId>) {
        let mut touched = self.touched.lock();
        if touched.len() >= TOUCHES {
            touched.retain(|_, at| at.elapsed() < TOUCH_EVERY);
            if touched.len() >= TOUCHES {
                touched.clear();
            }
        }
        touched.extend(conversations.into_iter().map(|conversation| (conversation, Instant::now())));
    }

    /// After an outage nothing is known of what the indexes hold.
    pub(crate) fn forget_touches(&self) {
        *self.touched.lock() = HashMap::new();
    }

    pub(super) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Cursor>, StoreError> {
        let call = |progress: &Progress| {
            let key = |part: &str| self.keys.conversation(&progress.conversation, part);
            Call::new(&POSITION, &[key("meta"), key("cursors")])
                .arg(progress.user.get())
                .arg(progress.delivered)
                .arg(progress.read)
                .into()
        };
        let replies = self.ask(batch.iter().map(call).collect()).await?;
        let cursor = |reply| {
            let (epoch, delivered, read, delivered_before, read_before) =
                parse::<(u64, i64, i64, i64, i64)>(reply)?;
            let delivered_grew = delivered > delivered_before;
            Ok(Cursor { epoch, delivered, read, delivered_grew, read_grew: read > read_before })
        };
        replies.into_iter().map(cursor).collect()
    }

    pub(super) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let exists = |id| {
            let mut command = redis::cmd("EXISTS");
            command.arg(self.keys.conversation(id, "meta"));
            command
        };
        let replies = self.ask(conversations.iter().map(exists).collect()).await?;
        replies.into_iter().map(parse::<bool>).collect()
    }

    pub(super) async fn conversations(
        &self,
        user: UserId,
        offset: usize,
        limit: usize,
    ) -> Result<Conversations, StoreError> {
        let mut range = redis::cmd("ZREVRANGE");
        range.arg(self.keys.conversations(user)).arg(offset).arg(offset.saturating_add(limit));
        let mut ids: Vec<String> = parse(self.ask(vec![range]).await?.remove(0))?;
        let has_more = ids.len() > limit;
        ids.truncate(limit);
        let ids: Vec<_> = ids.iter().filter_map(|id| ConversationId::parse(id).ok()).collect();
        let mut commands = Vec::with_capacity(ids.len() * 2);
        for id in &ids {
            let mut meta = redis::cmd("HMGET");
            meta.arg(self.keys.conversation(id, "meta")).arg(&["top", "epoch", "last"]);
            let mut cursors = redis::cmd("HMGET");
            let peer = id.peer_of(user).unwrap_or(user);
            cursors.arg(self.keys.conversation(id, "cursors")).arg(user.get()).arg(peer.get());
            commands.extend([meta, cursors]);
        }
        let mut replies = self.ask(commands).await?.into_iter();
        let mut positions = Vec::with_capacity(ids.len());
        for id in &ids {
            let (Some(meta), Some(cursors)) = (replies.next(), replies.next()) else { break };
            let (top, epoch, last): (Option<i64>, Option<u64>, Option<String>) = parse(meta)?;
            let (own, peer): (Option<String>, Option<String>) = parse(cursors)?;
            // Touched, but the append never came: nothing to tell.
            let (Some(top), Some(epoch)) = (top, epoch) else { continue };
            let (own, peer) = (parse_cursor(own.as_deref()), parse_cursor(peer.as_deref()));
            positions.push(position(id, epoch, top, last.unwrap_or_default(), own, peer));
        }
        Ok(Conversations { positions, has_more })
    }

    pub(super) async fn page(
        &self,
        conversation: &ConversationId,
        from: i64,
        limit: usize,
        direction: Direction,
    ) -> Result<Page, StoreError> {
        let log = self.keys.conversation(conversation, "log");
        let mut meta = redis::cmd("HMGET");
        meta.arg(self.keys.conversation(conversation, "meta")).arg(&["top", "epoch"]);
        let mut first = redis::cmd("XRANGE");
        first.arg(&log).arg("-").arg("+").arg("COUNT").arg(1);
        let mut range = redis::cmd(if direction == Direction::Forward { "XRANGE" } else { "XREVRANGE" });
        match direction {
            Direction::Forward => range.arg(&log).arg(from.max(0)).arg("+"),
            Direction::Backward if from <= 0 => range.arg(&log).arg("+").arg("-"),
            Direction::Backward => range.arg(&log).arg(from).arg("-"),
        };
        range.arg("COUNT").arg(limit.saturating_add(1));
        let mut replies = self.ask(vec![meta, first, range]).await?.into_iter();
        let mut reply = || replies.next().ok_or(StoreError::Unavailable);
        let (top, epoch): (Option<i64>, Option<u64>) = parse(reply()?)?;
        let first_available =
            parse::<Vec<(String, Value)>>(reply()?)?.first().map_or(0, |(id, _)| parse_seq(id));
        let mut entries: Vec<(String, HashMap<String, Vec<u8>>)> = parse(reply()?)?;
        let has_more = entries.len() > limit;
        entries.truncate(limit);
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

    async fn ask(&self, commands: Vec<redis::Cmd>) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.client.pipeline(commands).await.map_err(|error: RedisError| {
            tracing::debug!(%error, "store");
            StoreError::Unavailable
        })
    }
}

fn parse<T: FromRedisValue>(reply: RedisResult<Value>) -> Result<T, StoreError> {
    let value = reply.and_then(Value::extract_error).map_err(|error| refused(&error))?;
    T::from_redis_value(value).map_err(|error| StoreError::Broken(error.to_string()))
}

/// A server that is full, loading, read-only or misconfigured may recover:
/// the write was not done. A wrong type or a broken script does not.
fn refused(error: &redis::RedisError) -> StoreError {
    let code = error.code().unwrap_or_default();
    if matches!(code, "WRONGTYPE" | "ERR") {
        StoreError::Broken(error.to_string())
    } else {
        StoreError::Unavailable
    }
}

fn parse_appended(reply: RedisResult<Value>) -> Result<Appended, StoreError> {
    let (code, seq, server_msg_id, epoch, server_time) = parse::<(i64, i64, String, u64, i64)>(reply)?;
    Ok(match code {
        0 => Appended::Stored { seq, epoch },
        1 => Appended::Duplicate { seq, epoch, server_msg_id, server_time },
        _ => Appended::Conflict,
    })
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
