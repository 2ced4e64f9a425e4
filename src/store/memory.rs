//! The log in this process: what a gateway without Redis acknowledges at
//! level 1, and the model the other backend is held against.

use std::collections::HashMap;

use parking_lot::Mutex;
use prost::Message;

use super::{Append, Appended, Conversations, Cursor, Page, Progress, Span, complete, position};
use crate::types::{ConversationId, UserId, unix_micros, unix_ms};
use crate::wire::pb::{Direction, Push};

#[derive(Debug)]
struct Original {
    seq: i64,
    content_hash: u64,
}

#[derive(Debug, Default)]
struct Log {
    epoch: u64,
    messages: Vec<Push>,
    originals: HashMap<(UserId, String), Original>,
    cursors: HashMap<UserId, (i64, i64)>,
}

impl Log {
    fn top(&self) -> i64 {
        i64::try_from(self.messages.len()).unwrap_or(i64::MAX)
    }

    fn at(&self, seq: i64) -> Option<&Push> {
        self.messages.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }
}

#[derive(Debug, Default)]
struct State {
    logs: HashMap<ConversationId, Log>,
    /// User → conversation → last activity, unix ms.
    indexes: HashMap<UserId, HashMap<ConversationId, i64>>,
}

/// All conversations, in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(super) fn append(&self, batch: &[&Append]) -> Vec<Appended> {
        let mut state = self.state.lock();
        batch.iter().map(|append| state.append(append)).collect()
    }

    pub(super) fn advance(&self, batch: &[Progress]) -> Vec<Cursor> {
        let mut state = self.state.lock();
        let mut advance = |progress: &Progress| {
            // What was never written has no positions.
            let Some(log) = state.logs.get_mut(&progress.conversation) else { return Cursor::default() };
            let top = log.top();
            let cursor = log.cursors.entry(progress.user).or_default();
            let before = *cursor;
            cursor.1 = before.1.max(progress.read.min(top));
            cursor.0 = before.0.max(progress.delivered.min(top)).max(cursor.1);
            Cursor {
                epoch: log.epoch,
                delivered: cursor.0,
                read: cursor.1,
                delivered_grew: cursor.0 > before.0,
                read_grew: cursor.1 > before.1,
            }
        };
        batch.iter().map(&mut advance).collect()
    }

    pub(super) fn known(&self, conversations: &[ConversationId]) -> Vec<bool> {
        let state = self.state.lock();
        conversations.iter().map(|id| state.logs.get(id).is_some_and(|log| log.top() > 0)).collect()
    }

    pub(super) fn conversations(&self, user: UserId, offset: usize, limit: usize) -> Conversations {
        let state = self.state.lock();
        let mut index: Vec<_> = state.indexes.get(&user).into_iter().flatten().collect();
        index.sort_by(|a, b| b.1.cmp(a.1).then_with(|| b.0.cmp(a.0)));
        let has_more = index.len() > offset.saturating_add(limit);
        let read = |(conversation, _): (&ConversationId, &i64)| {
            let log = state.logs.get(conversation)?;
            let cursor = |user| log.cursors.get(&user).copied().unwrap_or_default();
            let peer = conversation.peer_of(user).map(cursor).unwrap_or_default();
            let last = log.messages.last().map(|m| m.server_msg_id.clone()).unwrap_or_default();
            Some(position(conversation, log.epoch, log.top(), last, cursor(user), peer))
        };
        let positions = index.into_iter().skip(offset).take(limit).filter_map(read).collect();
        Conversations { positions, has_more }
    }

    pub(super) fn page(&self, conversation: &ConversationId, span: Span) -> Page {
        let state = self.state.lock();
        let Some(log) = state.logs.get(conversation) else { return Page::default() };
        let top = log.top();
        let seqs: Box<dyn Iterator<Item = i64>> = match span.direction {
            Direction::Forward => Box::new(span.from.max(1)..=top),
            Direction::Backward if span.from <= 0 => Box::new((1..=top).rev()),
            Direction::Backward => Box::new((1..=span.from.min(top)).rev()),
        };
        // One more than asked for tells whether there is more.
        let found: Vec<&Push> =
            seqs.take(span.limit.saturating_add(1)).filter_map(|seq| log.at(seq)).collect();
        let keep = span.fitting(found.iter().map(|message| message.encoded_len()));
        let has_more = found.len() > keep;
        let messages = found.into_iter().take(keep).cloned().collect();
        Page { epoch: log.epoch, messages, top, first_available: top.min(1), has_more }
    }
}

impl State {
    fn append(&mut self, append: &Append) -> Appended {
        if let ConversationId::P2p(lo, hi) = append.conversation {
            for user in [lo, hi] {
                self.indexes.entry(user).or_default().insert(append.conversation.clone(), unix_ms());
            }
        }
        let log = self.logs.entry(append.conversation.clone()).or_default();
        if log.epoch == 0 {
            log.epoch = u64::try_from(unix_micros()).unwrap_or(1);
        }
        let key = (append.from, append.client_msg_id.clone());
        if let Some(original) = log.originals.get(&key) {
            let Some(message) = log.at(original.seq).filter(|_| original.content_hash == append.content_hash)
            else {
                return Appended::Conflict;
            };
            return Appended::Duplicate {
                seq: original.seq,
                epoch: log.epoch,
                server_msg_id: message.server_msg_id.clone(),
                server_time: message.server_time,
            };
        }
        let seq = log.top() + 1;
        log.messages.push(complete(append.push.clone(), seq, log.epoch));
        log.originals.insert(key, Original { seq, content_hash: append.content_hash });
        Appended::Stored { seq, epoch: log.epoch }
    }
}
