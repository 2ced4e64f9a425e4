//! What a client has whatever its places say: the newest of its own messages
//! that were acknowledged to it, what it pulled ahead of what is pushed, and
//! what it was given before it was told to pull. Pure.

use super::{Mark, Place};

/// Most of one connection; what is more is proved by the client alone, when
/// it resumes or pulls.
const MAX: usize = 256;

/// Per conversation and history the newest one.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    #[expect(clippy::box_collection, reason = "one word in every connection, instead of three")]
    list: Option<Box<Vec<Place>>>,
}

impl Holdings {
    /// The client has this message, or its ack, from now on.
    pub(super) fn add(&mut self, place: Place) {
        let list = self.list.get_or_insert_default();
        let room = list.len() < MAX;
        match list.iter_mut().find(|held| (held.key, held.epoch) == (place.key, place.epoch)) {
            Some(held) if held.seq < place.seq => *held = place,
            None if room => list.push(place),
            _ => {}
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Place> {
        self.list.as_deref().cloned().unwrap_or_default()
    }

    /// Those of one conversation.
    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = Place> {
        self.list.iter().flat_map(|list| list.iter()).filter(move |held| held.key == key).copied()
    }

    /// Whether it is one of these.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.of(place.key).any(|held| held == *place)
    }

    /// Whether a message of its own is among these, or before one of them.
    pub(super) fn covers(&self, own: &Mark) -> bool {
        self.of(own.conversation.key()).any(|held| held.epoch == own.epoch && held.seq >= own.seq)
    }

    /// It is in the log of this epoch: only another epoch can lose it.
    pub(super) fn proved(&mut self, place: &Place, epoch: u64) {
        if self.holds(place) && place.epoch != epoch {
            self.retain(|held| held != place);
            self.add(Place { epoch, ..*place });
        }
    }

    /// The client has pulled up to `place`: what lies before it is proved with
    /// it.
    pub(super) fn passed(&mut self, place: &Place) {
        self.retain(|held| (held.key, held.epoch) != (place.key, place.epoch) || held.seq > place.seq);
    }

    /// The client was told to forget it, or is out.
    pub(super) fn forget(&mut self, key: u64) {
        self.retain(|held| held.key != key);
    }

    fn retain(&mut self, keep: impl Fn(&Place) -> bool) {
        if let Some(list) = &mut self.list {
            list.retain(keep);
            if list.is_empty() {
                self.list = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ConversationId;

    fn place(epoch: u64, seq: i64) -> Place {
        Place::new(&ConversationId::parse("p2p:1:2").unwrap(), epoch, seq, seq * 10)
    }

    fn held(holdings: &Holdings) -> Vec<(u64, i64)> {
        holdings.of(place(0, 0).key).map(|held| (held.epoch, held.seq)).collect()
    }

    #[test]
    fn the_newest_of_each_history_is_kept_until_it_is_passed_or_forgotten() {
        let mut holdings = Holdings::default();
        [(7, 4), (7, 6), (7, 5), (8, 3)].into_iter().for_each(|(epoch, seq)| holdings.add(place(epoch, seq)));
        assert_eq!(held(&holdings), [(7, 6), (8, 3)]);
        holdings.passed(&place(7, 5));
        assert_eq!(held(&holdings), [(7, 6), (8, 3)]);
        holdings.passed(&place(8, 3));
        assert_eq!(held(&holdings), [(7, 6)]);
        holdings.proved(&place(7, 6), 9);
        assert_eq!(held(&holdings), [(9, 6)]);
        assert!(!holdings.holds(&place(7, 6)) && holdings.holds(&place(9, 6)));
        holdings.forget(place(0, 0).key);
        assert!(holdings.list.is_none());
    }

    #[test]
    fn it_is_bounded() {
        let mut holdings = Holdings::default();
        (0..300).for_each(|epoch| holdings.add(place(epoch, 1)));
        assert_eq!(held(&holdings).len(), MAX);
    }
}
