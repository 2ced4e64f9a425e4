//! What can happen to a store that no caller asked for, and a look at all of
//! it.

use super::MemoryStore;
use crate::types::ConversationId;
use crate::wire::pb::Push;

impl MemoryStore {
    /// A replica that lags behind takes over in this conversation; returns how
    /// many messages are gone.
    pub(crate) fn lose_tail(&self, conversation: &ConversationId, most: usize) -> usize {
        self.state.lock().logs.get_mut(conversation).map_or(0, |log| log.lose_tail(most))
    }

    /// Raises a conversation's epoch.
    pub(crate) fn raise(&self, conversation: &ConversationId) {
        if let Some(log) = self.state.lock().logs.get_mut(conversation) {
            log.raise();
        }
    }

    /// What was stored is no longer known by its sender's name for it.
    pub(crate) fn forget_originals(&self) {
        self.state.lock().logs.values_mut().for_each(super::log::Log::forget_originals);
    }

    /// Everything is gone.
    pub(crate) fn wipe(&self) {
        let mut state = self.state.lock();
        state.logs.clear();
        state.indexes.clear();
    }

    /// All messages of a conversation.
    pub(crate) fn all(&self, conversation: &ConversationId) -> Vec<Push> {
        self.state.lock().logs.get(conversation).map(super::log::Log::all).unwrap_or_default()
    }
}
