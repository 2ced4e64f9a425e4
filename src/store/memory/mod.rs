//! The log in this process: the model the other backends are held against.

#[cfg(test)]
mod damage;
mod groups;
mod log;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::log::Log;
use super::{
    Append, Appended, Appends, Cursor, Page, Progress, Refused, Retention, Span, Top, Trimmed, position,
};
use crate::types::{ConversationId, UserId, unix_ms};
use crate::wire::pb::Position;

#[derive(Debug, Default)]
struct State {
    logs: HashMap<ConversationId, Log>,
    /// The epoch and the `mver` of groups that were removed.
    former: HashMap<ConversationId, (u64, u64)>,
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

    pub(super) fn append(&self, batch: &[&Append]) -> Appends {
        let mut state = self.state.lock();
        let mut appends = Appends::default();
        for append in batch {
            let appended = state.append(append);
            if let (Appended::Stored { .. } | Appended::Duplicate { .. }, ConversationId::Group(_)) =
                (&appended, &append.conversation)
                && let Some(log) = state.logs.get(&append.conversation)
            {
                appends.audiences.insert(append.conversation.clone(), Arc::new(log.audience()));
            }
            appends.outcomes.push(Ok(appended));
        }
        appends
    }

    pub(super) fn advance(&self, batch: &[Progress]) -> Vec<Option<Cursor>> {
        let mut state = self.state.lock();
        batch.iter().map(|progress| state.advance(progress)).collect()
    }

    pub(super) fn known(&self, conversations: &[ConversationId]) -> Vec<bool> {
        let state = self.state.lock();
        conversations.iter().map(|id| state.logs.get(id).is_some_and(|log| log.seq() > 0)).collect()
    }

    pub(super) fn mutual(&self, conversations: &[ConversationId]) -> Vec<bool> {
        let state = self.state.lock();
        conversations.iter().map(|id| state.logs.get(id).is_some_and(|log| log.is_mutual(id))).collect()
    }

    pub(super) fn tops(&self, conversations: &[ConversationId]) -> Vec<Option<Top>> {
        let state = self.state.lock();
        conversations.iter().map(|id| state.logs.get(id).map(Log::top)).collect()
    }

    pub(super) fn index(
        &self,
        users: &[UserId],
        since: i64,
        offset: usize,
        limit: usize,
    ) -> Vec<Vec<ConversationId>> {
        let state = self.state.lock();
        let of = |user| {
            let mut index: Vec<_> = state.indexes.get(user).into_iter().flatten().collect();
            index.retain(|(_, at)| **at >= since);
            index.sort_by(|a, b| b.1.cmp(a.1).then_with(|| b.0.cmp(a.0)));
            index.into_iter().skip(offset).take(limit).map(|(id, _)| id.clone()).collect()
        };
        users.iter().map(of).collect()
    }

    pub(super) fn positions(&self, user: UserId, conversations: &[ConversationId]) -> Vec<Position> {
        let state = self.state.lock();
        let of = |conversation: &ConversationId| {
            let log = state.logs.get(conversation)?;
            let since = match conversation {
                ConversationId::P2p(..) => conversation.peer_of(user).map(|_| 0),
                ConversationId::Group(_) => log.members.get(&user).map(|member| member.since_seq),
            }?;
            let cursor = |user| log.cursors.get(&user).copied().unwrap_or_default();
            let peer = conversation.peer_of(user).map(cursor).unwrap_or_default();
            Some(position(conversation, log.top(), since, cursor(user), peer))
        };
        conversations.iter().filter_map(of).collect()
    }

    pub(super) fn page(&self, conversation: &ConversationId, span: Span) -> Page {
        self.state.lock().logs.get(conversation).map(|log| log.page(span)).unwrap_or_default()
    }

    pub(super) fn trim(&self, now: i64, retention: &Retention, _cursor: &str) -> Trimmed {
        let mut state = self.state.lock();
        let mut trimmed = Trimmed::default();
        for (conversation, log) in &mut state.logs {
            trimmed.conversations += 1;
            trimmed.messages += log.trim(now, retention.of(conversation));
        }
        trimmed
    }
}

impl State {
    fn touch(&mut self, user: UserId, conversation: &ConversationId) {
        self.indexes.entry(user).or_default().insert(conversation.clone(), unix_ms());
    }

    fn append(&mut self, append: &Append) -> Appended {
        match append.conversation {
            ConversationId::P2p(lo, hi) => {
                for user in [lo, hi] {
                    self.touch(user, &append.conversation);
                }
                self.logs.entry(append.conversation.clone()).or_insert_with(Log::new).append(append, false)
            }
            ConversationId::Group(_) => match self.logs.get_mut(&append.conversation) {
                Some(log) => log.append(append, true),
                None => Appended::Refused(Refused::NotFound),
            },
        }
    }

    fn advance(&mut self, progress: &Progress) -> Option<Cursor> {
        let is_group = matches!(progress.conversation, ConversationId::Group(_));
        let Some(log) = self.logs.get_mut(&progress.conversation) else {
            // What was never written has no positions.
            return (!is_group).then(Cursor::default);
        };
        if is_group && !log.members.contains_key(&progress.user) {
            return None;
        }
        let top = log.seq();
        let cursor = log.cursors.entry(progress.user).or_default();
        let before = *cursor;
        cursor.1 = before.1.max(progress.read.min(top));
        cursor.0 = before.0.max(progress.delivered.min(top)).max(cursor.1);
        let (delivered, read) = *cursor;
        Some(Cursor {
            epoch: log.epoch,
            delivered,
            read,
            delivered_grew: delivered > before.0,
            read_grew: read > before.1,
            audience: is_group.then(|| Arc::new(log.audience())),
        })
    }
}
