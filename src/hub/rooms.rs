//! The rooms of this gateway.

use std::sync::Arc;

use dashmap::DashMap;

use super::room::Room;
use crate::telemetry::metrics;
use crate::types::ConversationId;

/// The rooms, by the keys of their groups. A key is no proof of a name: who
/// may choose one can find another group's key, and gets a room of his own.
#[derive(Debug)]
pub(crate) struct Rooms {
    map: DashMap<u64, Vec<Arc<Room>>, foldhash::fast::RandomState>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { map: DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), 64) }
    }
}

impl Rooms {
    /// The room of a group, made if there is none.
    pub(crate) fn open(&self, conversation: &ConversationId, now_ms: u64) -> Arc<Room> {
        self.open_at(conversation.key(), conversation, now_ms)
    }

    fn open_at(&self, key: u64, conversation: &ConversationId, now_ms: u64) -> Arc<Room> {
        let mut rooms = self.map.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if let Some(room) = find(&rooms, conversation) {
            return room;
        }
        let room = Arc::new(Room::new(conversation.clone(), now_ms));
        rooms.push(Arc::clone(&room));
        drop(rooms);
        self.count();
        room
    }

    /// The room of a group, if it has one.
    #[must_use]
    pub(crate) fn get(&self, conversation: &ConversationId) -> Option<Arc<Room>> {
        find(&self.map.get(&conversation.key())?, conversation)
    }

    /// The rooms of all groups with this key: one, or none, as a rule.
    #[must_use]
    pub(crate) fn by_key(&self, key: u64) -> Vec<Arc<Room>> {
        self.map.get(&key).map(|rooms| rooms.clone()).unwrap_or_default()
    }

    /// Every room.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Room>> {
        let mut all: Vec<_> = self.map.iter().flat_map(|rooms| rooms.clone()).collect();
        // The same order each time, so that a course of events can be repeated.
        all.sort_by(|a, b| a.conversation.cmp(&b.conversation));
        all
    }

    /// Forgets idle tails, closes rooms that have been empty for a while, and
    /// returns the closed ones.
    pub(crate) fn sweep(&self, now_ms: u64) -> Vec<ConversationId> {
        let mut closed = Vec::new();
        self.map.retain(|_, rooms| {
            rooms.retain(|room| {
                let left = room.is_left(now_ms);
                closed.extend(left.then(|| room.conversation.clone()));
                !left
            });
            !rooms.is_empty()
        });
        self.count();
        closed
    }

    fn count(&self) {
        metrics().rooms.set(u32::try_from(self.map.len()).unwrap_or(u32::MAX));
    }
}

fn find(rooms: &[Arc<Room>], conversation: &ConversationId) -> Option<Arc<Room>> {
    rooms.iter().find(|room| room.conversation == *conversation).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::super::room::IDLE_MS;
    use super::*;
    use crate::types::UserId;

    #[test]
    fn groups_of_one_key_have_a_room_each() {
        let rooms = Rooms::default();
        let [one, other] = ["g:one", "g:other"].map(|text| ConversationId::parse(text).unwrap());
        let key = one.key();
        let room = rooms.open_at(key, &one, 0);
        let second = rooms.open_at(key, &other, 0);
        assert_eq!((&room.conversation, &second.conversation), (&one, &other));
        assert!(
            Arc::ptr_eq(&rooms.open(&one, 0), &room) && Arc::ptr_eq(&rooms.open_at(key, &other, 0), &second)
        );
        assert_eq!((rooms.by_key(key).len(), rooms.all().len()), (2, 2));
        second.enter(UserId::new(1).unwrap(), 0, 1);
        assert!(rooms.sweep(IDLE_MS).contains(&one) && rooms.get(&one).is_none());
        assert_eq!(rooms.by_key(key).len(), 1);
    }

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
