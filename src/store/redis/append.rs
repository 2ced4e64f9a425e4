//! Appending: one script call per conversation and batch, so that either all
//! of its messages are stored, in order, or none.
//!
//! Per message: three look-ups of its id, XADD, and the id kept; per call:
//! HMGET and HSET of `meta`, EXPIRE, and of a group each sender's entry and
//! the gateways. Two ZADD once a minute where two users talk. A wait for the
//! disk or a replica is one write, one wait and one INFO per round, of
//! everybody.
//!
//! A remembered id takes 150 bytes of Redis (100 as long as a conversation
//! has no more than 512 of them), by MEMORY USAGE, and stays 7 to 14 days.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use redis::{RedisResult, Value};

use super::super::{Append, Appended, Appends, Refused, StoreError, encode};
use super::{RedisStore, Told, audience, parse};
use crate::redis::{APPEND, Assurance, Call, Link, Wait, text};
use crate::telemetry::metrics;
use crate::types::{ConversationId, unix_ms};

/// An id is remembered for at least this long and at most twice as long.
const DEDUP_PERIOD_S: i64 = 7 * 24 * 3600;
/// A user's index is touched at most this often per conversation.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// Conversations whose last touch is remembered.
const TOUCHES: usize = 100_000;

/// Bytes of a message's other arguments, about.
const FRAME: usize = 128;

/// The appends of one conversation, by their place in the batch.
struct Group<'a> {
    conversation: &'a ConversationId,
    members: Vec<usize>,
    /// Where its call stands in the pipeline; its touches stand before it.
    command: usize,
    touches: usize,
}

impl RedisStore {
    pub(crate) async fn append(&self, batch: &[&Append]) -> Appends {
        let unknown = || Err(StoreError::Unavailable);
        let mut appends =
            Appends { outcomes: batch.iter().map(|_| unknown()).collect(), ..Appends::default() };
        let Link::Up { generation, history, assurance } = self.link.borrow().clone() else { return appends };
        if assurance.short.is_some() {
            // Rather not at all than weaker than configured.
            metrics().unconfirmed.increment(1);
            return appends;
        }
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (index, append) in batch.iter().enumerate() {
            match groups.iter_mut().find(|group| *group.conversation == append.conversation) {
                Some(group) => group.members.push(index),
                None => {
                    groups.push(Group {
                        conversation: &append.conversation,
                        members: vec![index],
                        command: 0,
                        touches: 0,
                    });
                }
            }
        }
        let mut commands = Vec::with_capacity(groups.len());
        for group in &mut groups {
            if self.due(group.conversation) {
                let touches = self.touch(group.conversation);
                group.touches = touches.len();
                commands.extend(touches);
            }
            group.command = commands.len();
            commands.push(self.append_call(group, batch, &history));
        }
        let Ok(replies) = self.client.pipeline_on(generation, commands).await else { return appends };
        let mut replies: Vec<_> = replies.into_iter().map(Some).collect();
        for group in groups {
            let mut take = |index: usize| replies.get_mut(index).and_then(Option::take);
            let touched = (group.command - group.touches..group.command).all(|index| is_done(take(index)));
            let mut appended = take(group.command).map_or(Err(StoreError::Unavailable), parse_appended);
            if !self.is_indexed(&group, touched, &appended).await {
                // Stored, but where nobody looks: not answered until it is
                // found. Tried again, it is a duplicate of itself.
                appended = Err(StoreError::Unavailable);
            }
            let (told, appended) = match appended {
                Ok((told, all)) => (told, Ok(all)),
                Err(error) => (None, Err(error)),
            };
            for (place, &index) in group.members.iter().enumerate() {
                let outcome = match &appended {
                    Ok(all) => all.get(place).cloned().ok_or(StoreError::Unavailable),
                    Err(error) => Err(error.clone()),
                };
                if let Some(slot) = appends.outcomes.get_mut(index) {
                    *slot = outcome;
                }
            }
            if let Some(told) = told {
                appends.audiences.insert(group.conversation.clone(), Arc::new(audience(told)));
            }
        }
        self.confirm(generation, &assurance, &mut appends).await;
        appends
    }

    /// What is in the log, now or since an earlier try, is told only once it is
    /// as durable as it was to be. Tried again, it is a duplicate of itself.
    async fn confirm(&self, generation: u64, wanted: &Assurance, appends: &mut Appends) {
        let in_log = |outcome: &Result<Appended, StoreError>| {
            matches!(outcome, Ok(Appended::Stored { .. } | Appended::Duplicate { .. }))
        };
        if !appends.outcomes.iter().any(in_log) {
            return;
        }
        let confirmed = self.client.confirm(generation, wanted.wait).await;
        let holds = matches!(&*self.link.borrow(), Link::Up { generation: now, assurance, .. }
            if *now == generation && assurance.level >= wanted.level);
        if confirmed.is_ok() && (holds || wanted.wait != Wait::Nothing) {
            return;
        }
        metrics().unconfirmed.increment(1);
        for outcome in appends.outcomes.iter_mut().filter(|outcome| in_log(outcome)) {
            *outcome = Err(StoreError::Unavailable);
        }
        appends.audiences.clear();
    }

    /// Whether both members' indexes name the conversation. A first message
    /// of one that was touched lately means that a wipe came in between.
    async fn is_indexed(
        &self,
        group: &Group<'_>,
        touched: bool,
        appended: &Result<(Option<Told>, Vec<Appended>), StoreError>,
    ) -> bool {
        if group.touches > 0 {
            if touched {
                self.remember(group.conversation.clone());
            }
            return touched;
        }
        let first = |appended: &Appended| matches!(appended, Appended::Stored { seq: 1, .. });
        if !appended.as_ref().is_ok_and(|(_, all)| all.iter().any(first)) {
            return true;
        }
        let replies = self.client.pipeline(self.touch(group.conversation)).await;
        let indexed = replies.is_ok_and(|all| all.into_iter().all(|reply| is_done(Some(reply))));
        if !indexed {
            // The next try touches again.
            self.touched.lock().remove(group.conversation);
        }
        indexed
    }

    fn append_call(&self, group: &Group<'_>, batch: &[&Append], history: &str) -> redis::Cmd {
        let tag = self.keys.tag(group.conversation);
        let key = |part: &str| [&tag, part].concat();
        let [now, before, after] = dedup_keys(&tag);
        let mut keys = vec![key("log"), key("meta"), now, before, after, key("blacklist")];
        if matches!(group.conversation, ConversationId::Group(_)) {
            keys.extend([key("members"), key("gateways")]);
        }
        let appends = || group.members.iter().filter_map(|&index| batch.get(index));
        let bytes: usize = appends().map(|append| append.push.encoded_len() + FRAME).sum();
        let mut call = Call::with_room(&APPEND, &keys, 2 + 6 * group.members.len(), 64 + bytes)
            .arg(2 * DEDUP_PERIOD_S)
            .arg(history);
        for append in appends() {
            call = call
                .arg(append.from.get())
                .arg(&append.client_msg_id)
                .arg(format!("{:016x}", append.content_hash))
                .arg(&append.server_msg_id)
                .arg(append.server_time)
                .arg(&encode(&append.push)[..]);
        }
        call.into()
    }

    /// Written before the append, so that a receiver who was away finds the
    /// conversation.
    fn touch(&self, conversation: &ConversationId) -> Vec<redis::Cmd> {
        let ConversationId::P2p(lo, hi) = *conversation else { return Vec::new() };
        let now = unix_ms();
        [lo, hi].map(|user| self.name_in_index(user, conversation, now)).into()
    }

    fn due(&self, conversation: &ConversationId) -> bool {
        self.touched.lock().get(conversation).is_none_or(|at| at.elapsed() >= TOUCH_EVERY)
    }

    fn remember(&self, conversation: ConversationId) {
        let mut touched = self.touched.lock();
        if touched.len() >= TOUCHES {
            touched.retain(|_, at| at.elapsed() < TOUCH_EVERY);
            if touched.len() >= TOUCHES {
                touched.clear();
            }
        }
        touched.insert(conversation, Instant::now());
    }

    /// After an outage nothing is known of what the indexes hold.
    pub(crate) fn forget_touches(&self) {
        *self.touched.lock() = std::collections::HashMap::new();
    }
}

/// Of this period, the last and the next one.
pub(super) fn dedup_keys(tag: &str) -> [String; 3] {
    let period = unix_ms() / 1000 / DEDUP_PERIOD_S;
    [period, period - 1, period + 1]
        .map(|period| [tag, "dedup:", itoa::Buffer::new().format(period)].concat())
}

fn is_done(reply: Option<RedisResult<Value>>) -> bool {
    reply.is_some_and(|reply| reply.and_then(Value::extract_error).is_ok())
}

fn parse_appended(reply: RedisResult<Value>) -> Result<(Option<Told>, Vec<Appended>), StoreError> {
    let mut replies = parse::<Vec<Value>>(reply)?.into_iter();
    let raised = replies.next().is_some_and(|raised| raised == Value::Int(1));
    metrics().epochs_raised.increment(u64::from(raised));
    let told = match replies.next() {
        None | Some(Value::Int(_)) => None,
        Some(told) => Some(parse(Ok(told))?),
    };
    let broken = || StoreError::Broken("reply of the append script".to_owned());
    Ok((
        told,
        replies.map(|reply| text(&reply).and_then(parse_one).ok_or_else(broken)).collect::<Result<_, _>>()?,
    ))
}

/// `outcome|seq|serverMsgId|epoch|server time`.
fn parse_one(text: &str) -> Option<Appended> {
    let mut fields = text.split('|');
    let mut next = || fields.next();
    let (code, seq) = (next()?, next()?.parse().ok()?);
    let (server_msg_id, epoch, server_time) =
        (next()?.to_owned(), next()?.parse().ok()?, next()?.parse().ok()?);
    Some(match code {
        "0" => Appended::Stored { seq, epoch },
        "1" => Appended::Duplicate { seq, epoch, server_msg_id, server_time },
        "2" => Appended::Conflict,
        "3" => Appended::Refused(Refused::NotFound),
        "4" => Appended::Refused(Refused::Muted(seq)),
        "5" => Appended::Refused(Refused::Blocked),
        _ => return None,
    })
}
