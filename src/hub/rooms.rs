//! The rooms of this gateway.

use std::sync::Arc;

use dashmap::DashMap;

use super::room::Room;
use crate::telemetry::metrics;
use crate::types::ConversationId;

/// The rooms, by the keys of their groups.
#[derive(Debug)]
pub(crate) struct Rooms {
    map: DashMap<u64, Arc<Room>, foldhash::fast::RandomState>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { map: DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), 64) }
    }
}

impl Rooms {
    /// The room of a group, made if there is none.
    pub(crate) fn open(&self, conversation: &ConversationId, now_ms: u64) -> Arc<Room> {
        let make = || Arc::new(Room::new(conversation.clone(), now_ms));
        let room = Arc::clone(&self.map.entry(conversation.key()).or_insert_with(make));
        metrics().rooms.set(u32::try_from(self.map.len()).unwrap_or(u32::MAX));
        room
    }

    /// The room of a group, if it has one.
    #[must_use]
    pub(crate) fn get(&self, conversation: &ConversationId) -> Option<Arc<Room>> {
        self.by_key(conversation.key())
    }

    /// The same by the group's key.
    #[must_use]
    pub(crate) fn by_key(&self, key: u64) -> Option<Arc<Room>> {
        self.map.get(&key).map(|room| Arc::clone(&room))
    }

    /// Every room.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Room>> {
        let mut all: Vec<_> = self.map.iter().map(|room| Arc::clone(&room)).collect();
        // The same order each time, so that a course of events can be repeated.
        all.sort_by(|a, b| a.conversation.cmp(&b.conversation));
        all
    }

    /// Forgets idle tails, closes rooms that have been empty for a while, and
    /// returns the closed ones.
    pub(crate) fn sweep(&self, now_ms: u64) -> Vec<ConversationId> {
        let mut closed = Vec::new();
        self.map.retain(|_, room| {
            let left = room.is_left(now_ms);
            closed.extend(left.then(|| room.conversation.clone()));
            !left
        });
        metrics().rooms.set(u32::try_from(self.map.len()).unwrap_or(u32::MAX));
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::IDLE_MS;
    use super::*;
    use crate::types::UserId;

    #[test]
    fn a_room_that_stays_empty_is_closed() {
        let rooms = Rooms::default();
        let room = rooms.open(&ConversationId::parse("g:a").unwrap(), 0);
        let user = UserId::new(1).unwrap();
        room.enter(user, 0, 1);
        assert!(rooms.sweep(IDLE_MS * 2).is_empty());
        room.leave_unless(user, || false);
        assert!(rooms.sweep(IDLE_MS * 2 + 1).is_empty(), "he may come back");
        assert_eq!(rooms.sweep(IDLE_MS * 4).len(), 1);
    }
}
