//! How far one connection is in each of its conversations. Pure.
//!
//! In *push* mode the next message is handed over, an older one dropped, and
//! one that comes too early shows a hole. In *pull* mode nothing is handed
//! over until the client has pulled to the end.

mod carried;

pub(crate) use carried::CarriedPlaces;

use super::holdings::Holdings;
use super::ledger::{Ledger, Stride};
use super::place::id_check;
use super::{Mark, Place, Verdict};
use crate::types::ConversationId;

/// Most conversations remembered of one connection; beyond, what comes first
/// of an unknown one is taken as the next.
const MAX_PLACES: usize = 4_096;

/// A conversation that the client was told to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulling {
    /// Which.
    pub conversation: ConversationId,
    /// The newest message known of.
    pub top: i64,
    /// Its history.
    pub epoch: u64,
    /// Epoch and top that the client was told last.
    pub told: (u64, i64),
}

/// The places of one connection. In this order: a fan-out looks at all but the
/// last.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Places {
    /// Complete: a conversation that is not listed had no message when the
    /// connection began.
    list: Ledger,
    /// Few, if any.
    #[expect(clippy::box_collection, reason = "one word in every connection, instead of three")]
    pulling: Option<Box<Vec<Pulling>>>,
    /// What else the client has.
    holdings: Holdings,
}

impl Places {
    /// Starts with these; `complete` = there are no others.
    pub(crate) fn open(&mut self, mut places: Vec<Place>, complete: bool) {
        places.sort_by_key(|place| place.key);
        // Of two the later one was found out later.
        places.reverse();
        places.dedup_by_key(|place| place.key);
        places.reverse();
        self.list = Ledger::of(&places, complete);
    }

    /// Whether something is known of this very conversation.
    #[must_use]
    pub(crate) fn is_listed(&self, conversation: &ConversationId) -> bool {
        self.list.get(conversation.key()).is_some()
    }

    /// The last message it was given; `None` = not known.
    #[must_use]
    pub(crate) fn get(&self, conversation: &ConversationId) -> Option<Place> {
        self.at(conversation.key(), conversation)
    }

    fn at(&self, key: u64, conversation: &ConversationId) -> Option<Place> {
        match self.list.get(key) {
            // What a group held before its user joined is none of his.
            None if self.list.is_complete() && !conversation.is_group() => {
                Some(Place { key, epoch: 0, seq: 0, id: 0 })
            }
            known => known,
        }
    }

    /// Moves there, forwards or backwards.
    pub(crate) fn set(&mut self, place: &Place) {
        let full = self.list.len() >= MAX_PLACES;
        self.list.put(place, !full);
    }

    /// Forgets a conversation that the user is no longer in.
    pub(crate) fn forget(&mut self, conversation: &ConversationId) {
        self.list.remove(conversation.key());
        self.holdings.forget(conversation.key());
        self.stop_pulling(conversation);
    }

    /// Judges a message, and moves behind it if it is the next one; `own` = the
    /// client has its ack.
    pub(crate) fn offer(&mut self, mark: &Mark, own: bool) -> Verdict {
        self.offer_by(mark.conversation.key(), mark, own)
    }

    /// The same with the key of its conversation, for whoever offers one
    /// message to many.
    pub(crate) fn offer_by(&mut self, key: u64, mark: &Mark, own: bool) -> Verdict {
        if let Some(pulling) = self.pulling_mut(&mark.conversation) {
            (pulling.epoch, pulling.top) = (pulling.epoch, pulling.top).max((mark.epoch, mark.seq));
            return Verdict::Pulling;
        }
        let place = self.at(key, &mark.conversation);
        if place.is_none() && self.list.is_complete() && !own {
            return Verdict::Unlisted;
        }
        let verdict = place.map_or(Verdict::Next, |place| place.judge(mark));
        // Its acknowledgement says nothing of what came before.
        if verdict == Verdict::Next && !(own && place.is_none()) {
            self.set(&Place { key, epoch: mark.epoch, seq: mark.seq, id: id_check(mark.id) });
        }
        verdict
    }

    /// Takes messages of others as a whole, if they are the next ones of a
    /// conversation in push mode; returns whether. Otherwise each is offered.
    pub(crate) fn stride(&mut self, conversation: &ConversationId, stride: &Stride) -> bool {
        !self.is_pulling(conversation) && self.list.stride(stride)
    }

    /// The client gets the ack of a message that it sent itself. Returns
    /// whether that is to be held against the log at once: it is of an older
    /// history than what the client was given.
    pub(crate) fn acknowledge(&mut self, mark: &Mark) -> bool {
        let is_pulling = self.is_pulling(&mark.conversation);
        let place = self.get(&mark.conversation).filter(|_| !is_pulling);
        // Also where it is the next one: what was queued before it may make way
        // for a hint, and the ack does not.
        self.holdings.add(Place::behind(mark));
        if place.is_some_and(|place| place.judge(mark) == Verdict::Next) {
            self.set(&Place::behind(mark));
        }
        place.is_some_and(|place| place.seq > 0 && mark.epoch < place.epoch)
    }

    /// The client has this message, which it asked for.
    pub(crate) fn took(&mut self, message: Place, conversation: &ConversationId) {
        let place = self.get(conversation).filter(|_| !self.is_pulling(conversation));
        if !place.is_some_and(|place| place.is_behind(&message)) {
            self.holdings.add(message);
        }
    }

    /// What the client has beyond its place, or before it began to pull, and
    /// is to be proved.
    pub(crate) fn holdings(&self, conversation: &ConversationId) -> impl Iterator<Item = Place> {
        let place = self.get(conversation).filter(|_| !self.is_pulling(conversation));
        let with_it = move |held: &Place| place.is_some_and(|place| place.is_behind(held));
        self.holdings.of(conversation.key()).filter(move |held| !with_it(held))
    }

    /// Moves on from a place to another one, which it is proved to be of the
    /// history of.
    pub(crate) fn move_on(&mut self, conversation: &ConversationId, from: &Place, to: &Place) {
        let with_it: Vec<Place> =
            self.holdings.of(conversation.key()).filter(|held| from.is_behind(held)).collect();
        with_it.iter().for_each(|held| self.holdings.proved(held, to.epoch));
        self.set(to);
    }

    /// Whether the client has the ack of this message of its own, as far as is
    /// known: it was not told to forget it.
    #[must_use]
    pub(crate) fn has_ack(&self, own: &Mark) -> bool {
        self.holdings.covers(own)
    }

    /// Whether the client has this very message still, as far as is known.
    fn has(&self, conversation: &ConversationId, place: &Place) -> bool {
        let given = !self.is_pulling(conversation) && self.get(conversation) == Some(*place);
        given || self.holdings.holds(place)
    }

    /// One of the holdings is in the log of this epoch.
    pub(crate) fn proved(&mut self, held: &Place, epoch: u64) {
        self.holdings.proved(held, epoch);
    }

    /// Enters pull mode; returns whether it is new, and the client to be told.
    /// `handed` = what lies before the place is on its way to the client.
    pub(crate) fn pull(&mut self, conversation: &ConversationId, epoch: u64, top: i64, handed: bool) -> bool {
        if let Some(pulling) = self.pulling_mut(conversation) {
            (pulling.epoch, pulling.top) = (pulling.epoch, pulling.top).max((epoch, top));
            return false;
        }
        if let Some(place) = self.get(conversation).filter(|place| handed && place.seq > 0) {
            if place.epoch == epoch && place.seq >= top {
                // It was pulled before it was told of.
                return false;
            }
            if place.id != 0 {
                self.holdings.add(place);
            }
        }
        let pulling = Pulling { conversation: conversation.clone(), top, epoch, told: (epoch, top) };
        self.pulling.get_or_insert_default().push(pulling);
        true
    }

    /// Whether the client was told to pull it.
    #[must_use]
    pub(crate) fn is_pulling(&self, conversation: &ConversationId) -> bool {
        self.pulling.iter().flat_map(|all| all.iter()).any(|pulling| pulling.conversation == *conversation)
    }

    /// The client is told to forget what it has, since `lost` is not in the log,
    /// and to begin anew behind `to`; what was to be pulled still is. `false` =
    /// it does not have that any more: it was told, or has moved on.
    pub(crate) fn give_up(&mut self, conversation: &ConversationId, lost: &Place, to: &Place) -> bool {
        let had = self.has(conversation, lost);
        if had {
            self.begin_anew(conversation, to);
        }
        had
    }

    /// The same where it is the client that names a position that is not in the
    /// log: what it was given of this history stays.
    pub(crate) fn refute(&mut self, conversation: &ConversationId, to: &Place) {
        let here = |place: Place| place.seq > 0 && place.seq <= to.seq && place.epoch == to.epoch;
        if !self.get(conversation).is_some_and(here) {
            self.begin_anew(conversation, to);
        }
    }

    fn begin_anew(&mut self, conversation: &ConversationId, to: &Place) {
        self.holdings.forget(conversation.key());
        if let Some(pulling) = self.pulling_mut(conversation) {
            // The client is told as much.
            (pulling.epoch, pulling.top) = (pulling.epoch, pulling.top).max((to.epoch, to.seq));
        }
        self.set(to);
    }

    /// The newest message known of in a conversation to be pulled, epoch and
    /// seq; 0 = it is not, or nothing is.
    #[must_use]
    pub(crate) fn known_top(&self, conversation: &ConversationId) -> (u64, i64) {
        let mut all = self.pulling.iter().flat_map(|all| all.iter());
        let found = all.find(|pulling| pulling.conversation == *conversation);
        found.map_or((0, 0), |pulling| (pulling.epoch, pulling.top))
    }

    /// The client pulled from `from` up to `mark`, the end of what was read;
    /// `known` is [`Self::known_top`] before it was read. Returns whether that
    /// is the end still: then push mode goes on behind it.
    pub(crate) fn pulled(&mut self, from: i64, mark: &Mark, known: (u64, i64)) -> bool {
        if let Some(pulling) = self.pulling_mut(&mark.conversation) {
            let top = (pulling.epoch, pulling.top);
            // What was known before the log was read, and is not in it, is lost.
            let grown = top > (mark.epoch, mark.seq) && top > known;
            // An ack of an older history that came meanwhile is to be proved.
            if grown || self.holdings(&mark.conversation).any(|held| held.epoch < mark.epoch) {
                return false;
            }
            self.stop_pulling(&mark.conversation);
        } else if let Some(place) = self.get(&mark.conversation) {
            // What lies between is pushed, and another history told.
            let follows = from <= place.seq.saturating_add(1);
            let same = place.seq == 0 || place.epoch == mark.epoch;
            if place.seq >= mark.seq || !follows || !same {
                return true;
            }
        }
        self.holdings.passed(&Place::behind(mark));
        self.set(&Place::behind(mark));
        true
    }

    /// Leaves pull mode in all conversations; returns what was known of them.
    pub(crate) fn take_pulling(&mut self) -> Vec<Pulling> {
        self.pulling.take().map(|all| *all).unwrap_or_default()
    }

    /// Conversations to be pulled that have grown since the client was told.
    pub(crate) fn news(&mut self) -> Vec<Pulling> {
        let all = self.pulling.iter_mut().flat_map(|all| all.iter_mut());
        let news = all.filter(|pulling| (pulling.epoch, pulling.top) > pulling.told).map(|pulling| {
            pulling.told = (pulling.epoch, pulling.top);
            pulling.clone()
        });
        news.collect()
    }

    /// The conversations it has a place in, by their keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> {
        self.list.iter().map(|place| place.key)
    }

    fn pulling_mut(&mut self, conversation: &ConversationId) -> Option<&mut Pulling> {
        self.pulling.as_mut()?.iter_mut().find(|pulling| pulling.conversation == *conversation)
    }

    /// Leaves pull mode.
    pub(crate) fn stop_pulling(&mut self, conversation: &ConversationId) {
        if let Some(all) = &mut self.pulling {
            all.retain(|pulling| pulling.conversation != *conversation);
            if all.is_empty() {
                self.pulling = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: u64, seq: i64) -> Mark {
        let conversation = ConversationId::parse("p2p:1:2").unwrap();
        Mark { conversation, epoch, seq, id: seq * 10 }
    }

    fn behind(epoch: u64, seq: i64) -> Places {
        let mut places = Places::default();
        places.open(vec![Place::new(&mark(0, 0).conversation, epoch, seq, seq * 10)], true);
        places
    }

    #[test]
    fn each_message_is_handed_over_once_and_in_order() {
        let mut places = behind(7, 4);
        let offers = [
            (4, Verdict::Stale),
            (6, Verdict::Hole),
            (5, Verdict::Next),
            (6, Verdict::Next),
            (5, Verdict::Stale),
        ];
        for (seq, verdict) in offers {
            assert_eq!(places.offer(&mark(7, seq), false), verdict, "{seq}");
        }
        assert_eq!(places.offer(&mark(8, 7), false), Verdict::OtherHistory);
        assert_eq!(places.offer(&mark(6, 7), false), Verdict::Stale);
    }

    #[test]
    fn what_is_not_listed_is_new_or_unknown() {
        let mut complete = Places::default();
        complete.open(Vec::new(), true);
        assert_eq!(complete.offer(&mark(7, 2), false), Verdict::Hole);
        assert_eq!(complete.offer(&mark(7, 1), false), Verdict::Next);
        let mut partial = Places::default();
        partial.open(Vec::new(), false);
        assert_eq!(partial.offer(&mark(7, 9), false), Verdict::Next);
        assert_eq!(partial.offer(&mark(7, 11), false), Verdict::Hole);
    }

    #[test]
    fn nothing_is_handed_over_until_all_is_pulled() {
        let mut places = behind(7, 4);
        assert!(places.pull(&mark(0, 0).conversation, 7, 5, true));
        assert!(!places.pull(&mark(0, 0).conversation, 7, 5, true), "told once");
        assert_eq!(places.offer(&mark(7, 6), false), Verdict::Pulling);
        assert_eq!(places.news().iter().map(|p| p.top).collect::<Vec<_>>(), [6]);
        assert!(places.news().is_empty());
        assert_eq!(places.offer(&mark(8, 1), false), Verdict::Pulling);
        assert_eq!(places.news().iter().map(|p| (p.epoch, p.top)).collect::<Vec<_>>(), [(8, 1)], "a new log");
    }

    #[test]
    fn push_mode_goes_on_behind_the_end() {
        let mut places = behind(7, 4);
        places.pull(&mark(0, 0).conversation, 7, 5, true);
        assert_eq!(places.offer(&mark(7, 6), false), Verdict::Pulling);
        assert!(!places.pulled(5, &mark(7, 5), (7, 5)), "6 came meanwhile");
        assert_eq!(places.offer(&mark(7, 7), false), Verdict::Pulling);
        assert!(places.pulled(5, &mark(7, 7), (7, 7)));
        assert_eq!(places.offer(&mark(7, 8), false), Verdict::Next);
        assert!(places.pulled(5, &mark(7, 5), (0, 0)), "an old range changes nothing");
        assert_eq!(places.offer(&mark(7, 8), false), Verdict::Stale);
    }

    #[test]
    fn a_range_that_was_not_asked_for_moves_only_what_it_continues() {
        let mut places = behind(7, 4);
        places.pulled(7, &mark(7, 8), (0, 0));
        assert_eq!(places.offer(&mark(7, 5), false), Verdict::Next, "5 and 6 are still to come");
        places.pulled(6, &mark(9, 8), (0, 0));
        assert_eq!(places.offer(&mark(9, 9), false), Verdict::OtherHistory, "still to be told");
        places.pulled(6, &mark(7, 8), (0, 0));
        assert_eq!(places.offer(&mark(7, 8), false), Verdict::Stale);
    }

    #[test]
    fn what_the_client_has_is_known_while_it_pulls() {
        let mut places = behind(7, 4);
        let conversation = mark(0, 0).conversation;
        places.pull(&conversation, 7, 6, true);
        let has = |places: &Places| -> Vec<(u64, i64)> {
            places.holdings(&conversation).map(|held| (held.epoch, held.seq)).collect()
        };
        assert_eq!(has(&places), [(7, 4)], "what was handed over");
        for seq in [7, 9, 8] {
            places.acknowledge(&mark(7, seq));
            assert_eq!(places.offer(&mark(7, seq), true), Verdict::Pulling);
        }
        places.acknowledge(&mark(8, 5));
        assert_eq!(has(&places), [(7, 9), (8, 5)]);
        assert!(!places.pulled(1, &mark(8, 6), (7, 9)), "an ack of an older history came meanwhile");
        let lost = Place::behind(&mark(7, 9));
        assert!(places.give_up(&conversation, &lost, &Place::behind(&mark(8, 3))));
        assert!(!places.give_up(&conversation, &lost, &Place::behind(&mark(8, 3))), "told once");
        assert_eq!((has(&places), places.known_top(&conversation)), (vec![], (8, 3)));
        assert_eq!(places.offer(&mark(8, 4), false), Verdict::Pulling);
        assert!(places.pulled(1, &mark(8, 6), (8, 6)));
    }

    #[test]
    fn nobody_is_told_to_pull_what_he_has() {
        let mut places = behind(7, 4);
        let conversation = mark(0, 0).conversation;
        assert!(!places.pull(&conversation, 7, 4, true));
        assert_eq!(places.offer(&mark(7, 5), false), Verdict::Next);
        assert!(places.pull(&conversation, 7, 5, false), "it was queued, and is not any more");
    }

    #[test]
    fn a_position_that_only_the_client_names_moves_what_is_of_another_history() {
        let conversation = mark(0, 0).conversation;
        for (epoch, seq, stands) in [(7, 4, (8, 9)), (8, 4, (8, 4)), (8, 12, (8, 9))] {
            let mut places = behind(epoch, seq);
            places.refute(&conversation, &Place::behind(&mark(8, 9)));
            let place = places.get(&conversation).unwrap();
            assert_eq!((place.epoch, place.seq), stands);
        }
    }

    #[test]
    fn what_the_log_lost_is_not_waited_for() {
        let mut places = behind(7, 4);
        places.pull(&mark(0, 0).conversation, 7, 9, true);
        let known = places.known_top(&mark(0, 0).conversation);
        assert!(places.pulled(5, &mark(7, 6), known));
    }
}
