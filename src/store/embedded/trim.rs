//! Removing what is past its time, a bounded step at a time: looking is done
//! beside the thread that writes, removing by it.

use prost::Message;

use super::EmbeddedStore;
use super::committer::Durability;
use super::engine::EngineError;
use super::read::View;
use super::rows::{self, Former, Space};
use super::staged::{PERIOD_MS, Staged};
use crate::store::{Keep, Retention, StoreError, Trimmed};
use crate::types::{ConversationId, unix_ms};
use crate::wire::pb::Push;

/// Conversations looked at in one step.
const CONVERSATIONS: usize = 256;
/// A cursor before every conversation, which is not the end of a round.
const START: &str = "!";
/// Messages removed in one step.
const MESSAGES: usize = 2_000;

/// A removed group's name is remembered this long, ms.
const FORMER_MS: i64 = 30 * 24 * 3600 * 1000;

/// Messages of a conversation to remove.
struct Cut {
    conversation: ConversationId,
    /// It may be another one of that name by now.
    number: u64,
    /// The last seq.
    to: i64,
    messages: usize,
}

/// What a step found to remove.
struct Found {
    cuts: Vec<Cut>,
    looked_at: u64,
    /// Where to go on.
    cursor: String,
}

impl Former {
    fn is_forgotten(&self, now: i64) -> bool {
        now.saturating_sub(self.at) > FORMER_MS
    }
}

impl View {
    /// Goes through conversations behind `cursor`.
    fn outdated(&self, now: i64, retention: &Retention, cursor: &str) -> Result<Found, EngineError> {
        let prefix = rows::heads();
        let after = (!cursor.is_empty()).then(|| [&prefix[..], cursor.as_bytes()].concat());
        let heads = self.engine.scan(Space::State, &prefix, after.as_deref(), CONVERSATIONS)?;
        let mut found = Found { cuts: Vec::new(), looked_at: 0, cursor: String::new() };
        let is_last = heads.len() < CONVERSATIONS;
        let mut room = MESSAGES;
        let mut cursor = if cursor.is_empty() { START.to_owned() } else { cursor.to_owned() };
        for (key, _) in heads {
            let Some(conversation) = rows::conversation(&key, prefix.len()) else { continue };
            found.looked_at += 1;
            if let Some(cut) = self.cut(now, retention.of(&conversation), &conversation, room)? {
                room -= cut.messages;
                found.cuts.push(cut);
            }
            if room == 0 {
                // It may have more.
                found.cursor = cursor;
                return Ok(found);
            }
            cursor = conversation.text();
        }
        if !is_last {
            found.cursor = cursor;
        }
        Ok(found)
    }

    /// What to remove, at most `room` messages.
    fn cut(
        &self,
        now: i64,
        keep: Keep,
        conversation: &ConversationId,
        room: usize,
    ) -> Result<Option<Cut>, EngineError> {
        let Some(head) = self.head(conversation)? else { return Ok(None) };
        let excess = keep.count.map_or(0, |count| head.top.saturating_sub(count));
        let keys = (
            &rows::message(head.number, head.trimmed.saturating_add(1))[..],
            &rows::message(head.number, head.top)[..],
        );
        let (mut to, mut messages) = (head.trimmed, 0);
        if keep.age_ms.is_none() && excess <= to {
            return Ok(None);
        }
        let mut broken = None;
        self.engine.messages(keys, false, |key, row| {
            let Some(seq) = rows::seq(key) else { return false };
            let mut is_old = || match Push::decode(row) {
                Ok(push) => keep.age_ms.is_some_and(|age| now.saturating_sub(push.server_time) > age),
                Err(error) => {
                    broken = Some(error);
                    false
                }
            };
            if seq > excess && !is_old() {
                return false;
            }
            (to, messages) = (seq, messages + 1);
            messages < room
        })?;
        match broken {
            Some(error) => Err(error.into()),
            None if messages == 0 => Ok(None),
            None => Ok(Some(Cut { conversation: conversation.clone(), number: head.number, to, messages })),
        }
    }

    /// Keys of messages whose conversation is gone, and the numbers that have
    /// none left.
    fn orphans(&self) -> Result<(Vec<Vec<u8>>, Vec<u64>), EngineError> {
        let (mut keys, mut done) = (Vec::new(), Vec::new());
        for (doomed, _) in self.engine.scan(Space::State, &rows::all_doomed(), None, CONVERSATIONS)? {
            let Some(number) = rows::suffix(&doomed) else { continue };
            let room = MESSAGES.saturating_sub(keys.len());
            if room == 0 {
                break;
            }
            let of_it = self.engine.scan(Space::Messages, &number.to_be_bytes(), None, room)?;
            if of_it.len() < room {
                done.push(number);
            }
            keys.extend(of_it.into_iter().map(|(key, _)| key));
        }
        Ok((keys, done))
    }

    /// Keys of removed groups that were removed long enough ago.
    fn forgotten(&self, now: i64) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut keys = Vec::new();
        for (key, row) in self.engine.scan(Space::State, &rows::all_former(), None, usize::MAX)? {
            if Former::decode(&row[..])?.is_forgotten(now) {
                keys.push(key);
            }
        }
        keys.truncate(MESSAGES);
        Ok(keys)
    }
}

/// Removes the messages up to the cuts.
fn cut(staged: &mut Staged, cuts: &[Cut]) -> Result<u64, EngineError> {
    let mut removed = 0;
    for Cut { conversation, number, to, .. } in cuts {
        let Some(mut head) = staged.head(conversation)?.filter(|head| head.number == *number) else {
            continue;
        };
        let to = (*to).min(head.top);
        for seq in head.trimmed.saturating_add(1)..=to {
            staged.remove(Space::Messages, rows::message(head.number, seq).to_vec());
            removed += 1;
        }
        head.trimmed = head.trimmed.max(to);
        staged.put_head(conversation, head);
    }
    Ok(removed)
}

impl EmbeddedStore {
    pub(crate) async fn trim(
        &self,
        now: i64,
        retention: &Retention,
        cursor: &str,
    ) -> Result<Trimmed, StoreError> {
        if cursor.is_empty() {
            self.sweep(now).await?;
        }
        let (retention, from) = (*retention, cursor.to_owned());
        let found = self.read(move |view| view.outdated(now, &retention, &from)).await?;
        let Found { cuts, looked_at, cursor } = found;
        let messages = match cuts.is_empty() {
            true => 0,
            false => self.write(Durability::Synced, true, move |staged| cut(staged, &cuts)).await?,
        };
        Ok(Trimmed { messages, conversations: looked_at, cursor })
    }

    /// Old ids, and a step of what removed conversations left.
    async fn sweep(&self, now: i64) -> Result<(), StoreError> {
        let oldest = unix_ms() / PERIOD_MS - 1;
        let ((keys, done), former) = self
            .read(move |view| {
                view.engine.forget_before(oldest)?;
                Ok((view.orphans()?, view.forgotten(now)?))
            })
            .await?;
        if keys.is_empty() && done.is_empty() && former.is_empty() {
            return Ok(());
        }
        self.write(Durability::Synced, false, move |staged| {
            keys.into_iter().for_each(|key| staged.remove(Space::Messages, key));
            done.into_iter().for_each(|number| staged.remove(Space::State, rows::doomed(number)));
            for key in former {
                // It may have come and gone once more.
                if staged.get::<Former>(Space::State, key.clone())?.is_some_and(|it| it.is_forgotten(now)) {
                    staged.remove(Space::State, key);
                }
            }
            Ok(())
        })
        .await
    }
}
