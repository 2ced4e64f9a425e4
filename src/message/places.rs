//! How far one connection is in each of its conversations. Pure.
//!
//! In *push* mode the next message is handed over, an older one dropped, and
//! one that comes too early shows a hole. In *pull* mode nothing is handed
//! over until the client has pulled to the end.

use super::Mark;
use crate::types::ConversationId;

/// Most conversations remembered of one connection; beyond, what comes first
/// of an unknown one is taken as the next.
const MAX_PLACES: usize = 4_096;

/// The last message of one conversation that a connection was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// [`ConversationId::key`].
    pub key: u64,
    /// Of which history.
    pub epoch: u64,
    /// Its position; 0 = nothing yet.
    pub seq: i64,
    /// Which message that is; 0 = not known.
    pub id: i64,
}

impl Place {
    /// Behind this message.
    #[must_use]
    pub(crate) fn new(conversation: &ConversationId, epoch: u64, seq: i64, id: i64) -> Self {
        Self { key: conversation.key(), epoch, seq, id }
    }
}

/// A conversation that the client was told to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulling {
    /// Which.
    pub conversation: ConversationId,
    /// The newest message known of.
    pub top: i64,
    /// Its history.
    pub epoch: u64,
    /// The top the client was told last.
    pub told: i64,
    /// The last message that the client has, or has the ack of, as far as is
    /// known: whether the log still has it is to be proved when its epoch is
    /// another one.
    pub has: Option<Place>,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand it over.
    Next,
    /// It was handed over before.
    Stale,
    /// The ones before it come first.
    Hole,
    /// It is of another history: what the connection has is to be proved.
    OtherHistory,
    /// The client pulls it.
    Pulling,
}

/// The places of one connection.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By key.
    list: Vec<Place>,
    /// A conversation that is not listed had no message when the connection
    /// began.
    complete: bool,
    /// Few, if any.
    #[expect(clippy::box_collection, reason = "one word in every connection, instead of three")]
    pulling: Option<Box<Vec<Pulling>>>,
}

impl Places {
    /// Starts with these; `complete` = there are no others.
    pub(crate) fn open(&mut self, mut places: Vec<Place>, complete: bool) {
        places.sort_by_key(|place| place.key);
        // Of two the later one was found out later.
        places.reverse();
        places.dedup_by_key(|place| place.key);
        places.reverse();
        places.shrink_to_fit();
        self.list = places;
        self.complete = complete;
    }

    /// All of it: the places by key, whether there are no others, and what the
    /// client was told to pull.
    pub(crate) fn parts(&self) -> (&[Place], bool, &[Pulling]) {
        (&self.list, self.complete, self.pulling.as_deref().map_or(&[], Vec::as_slice))
    }

    /// Goes on with the [parts](Self::parts) of another one.
    pub(crate) fn resume(list: Vec<Place>, complete: bool, pulling: Vec<Pulling>) -> Self {
        let mut places = Self::default();
        places.open(list, complete);
        places.pulling = (!pulling.is_empty()).then(|| Box::new(pulling));
        places
    }

    fn find(&self, conversation: &ConversationId) -> Result<usize, usize> {
        self.list.binary_search_by_key(&conversation.key(), |place| place.key)
    }

    /// Whether something is known of this very conversation.
    #[must_use]
    pub(crate) fn is_listed(&self, conversation: &ConversationId) -> bool {
        self.find(conversation).is_ok()
    }

    /// The last message it was given; `None` = not known.
    #[must_use]
    pub(crate) fn get(&self, conversation: &ConversationId) -> Option<Place> {
        match self.find(conversation) {
            Ok(at) => self.list.get(at).copied(),
            // What a group held before its user joined is none of his.
            Err(_) if self.complete && !conversation.is_group() => Some(Place::new(conversation, 0, 0, 0)),
            Err(_) => None,
        }
    }

    /// Moves there, forwards or backwards.
    pub(crate) fn set(&mut self, conversation: &ConversationId, epoch: u64, seq: i64, id: i64) {
        let place = Place::new(conversation, epoch, seq, id);
        match self.find(conversation) {
            Ok(at) => {
                if let Some(known) = self.list.get_mut(at) {
                    *known = place;
                }
            }
            Err(_) if self.list.len() >= MAX_PLACES => self.complete = false,
            Err(at) => self.list.insert(at, place),
        }
    }

    /// Forgets a conversation that the user is no longer in.
    pub(crate) fn forget(&mut self, conversation: &ConversationId) {
        if let Ok(at) = self.find(conversation) {
            self.list.remove(at);
        }
        self.stop_pulling(conversation);
    }

    /// Judges a message, and moves behind it if it is the next one; `own` = it
    /// was sent over this connection.
    pub(crate) fn offer(&mut self, mark: &Mark, own: bool) -> Verdict {
        if let Some(pulling) = self.pulling_mut(&mark.conversation) {
            // What is of an older history is not proved yet, and stays.
            let further = |has: Place| has.epoch == mark.epoch && has.seq < mark.seq;
            if own && pulling.has.is_none_or(further) {
                pulling.has = Some(Place::new(&mark.conversation, mark.epoch, mark.seq, mark.id));
            }
            if (mark.epoch, mark.seq) > (pulling.epoch, pulling.top) {
                (pulling.epoch, pulling.top) = (mark.epoch, mark.seq);
            }
            return Verdict::Pulling;
        }
        let verdict = match self.get(&mark.conversation) {
            // Its acknowledgement says nothing of what came before.
            None if own => return Verdict::Next,
            // Nothing is known of what came before.
            None => Verdict::Next,
            Some(place) if place.seq == 0 && mark.seq == 1 => Verdict::Next,
            Some(place) if place.seq == 0 => Verdict::Hole,
            Some(place) if mark.epoch > place.epoch => Verdict::OtherHistory,
            Some(place) if mark.epoch < place.epoch => Verdict::Stale,
            Some(place) if mark.seq <= place.seq => Verdict::Stale,
            Some(place) if mark.seq == place.seq + 1 => Verdict::Next,
            Some(_) => Verdict::Hole,
        };
        if verdict == Verdict::Next {
            self.set(&mark.conversation, mark.epoch, mark.seq, mark.id);
        }
        verdict
    }

    /// Enters pull mode; returns whether it is new, and the client to be told.
    /// `handed` = what lies before the place is on its way to the client.
    pub(crate) fn pull(&mut self, conversation: &ConversationId, epoch: u64, top: i64, handed: bool) -> bool {
        if let Some(pulling) = self.pulling_mut(conversation) {
            (pulling.epoch, pulling.top) = (pulling.epoch, pulling.top).max((epoch, top));
            return false;
        }
        let has = self.get(conversation).filter(|place| handed && place.seq > 0 && place.id != 0);
        let pulling = Pulling { conversation: conversation.clone(), top, epoch, told: top, has };
        self.pulling.get_or_insert_default().push(pulling);
        true
    }

    /// Whether the client was told to pull it.
    #[must_use]
    pub(crate) fn is_pulling(&self, conversation: &ConversationId) -> bool {
        self.pulling.iter().flat_map(|all| all.iter()).any(|pulling| pulling.conversation == *conversation)
    }

    /// The last message that the client has, or has the ack of, in a
    /// conversation it is to pull; `None` = not known.
    #[must_use]
    pub(crate) fn has(&self, conversation: &ConversationId) -> Option<Place> {
        let mut all = self.pulling.iter().flat_map(|all| all.iter());
        all.find(|pulling| pulling.conversation == *conversation)?.has
    }

    /// Begins anew behind this message; what was to be pulled still is.
    pub(crate) fn restart(&mut self, conversation: &ConversationId, epoch: u64, seq: i64, id: i64) {
        if let Some(pulling) = self.pulling_mut(conversation) {
            pulling.has = None;
        }
        self.set(conversation, epoch, seq, id);
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
            if top > (mark.epoch, mark.seq) && top > known {
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
        self.set(&mark.conversation, mark.epoch, mark.seq, mark.id);
        true
    }

    /// Leaves pull mode in all conversations; returns what was known of them.
    pub(crate) fn take_pulling(&mut self) -> Vec<Pulling> {
        self.pulling.take().map(|all| *all).unwrap_or_default()
    }

    /// Conversations to be pulled that have grown since the client was told.
    pub(crate) fn news(&mut self) -> Vec<Pulling> {
        let all = self.pulling.iter_mut().flat_map(|all| all.iter_mut());
        let news = all.filter(|pulling| pulling.top > pulling.told).map(|pulling| {
            pulling.told = pulling.top;
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

/// How a place fits a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It is of this history.
    Valid,
    /// Another message stands there.
    OtherMessage,
    /// The log ends before it.
    Beyond,
    /// What stood there is trimmed, and the epoch is another one.
    Unknown,
}

/// Whether a place (`epoch`, `seq`, `id`; 0 = not known) is of the history of
/// a log with this `log_epoch` and `top`, whose message at `seq` is `at`,
/// unless it is trimmed.
#[must_use]
pub(crate) fn prove(place: &Place, log_epoch: u64, top: i64, at: Option<i64>) -> Proof {
    let same_epoch = place.epoch == log_epoch;
    match at {
        _ if place.seq == 0 => Proof::Valid,
        _ if place.seq > top => Proof::Beyond,
        Some(id) if place.id == id => Proof::Valid,
        Some(_) if place.id == 0 && same_epoch => Proof::Valid,
        Some(_) => Proof::OtherMessage,
        None if same_epoch => Proof::Valid,
        None => Proof::Unknown,
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
    fn what_the_client_sent_while_it_pulls_is_remembered() {
        let mut places = behind(7, 4);
        let conversation = mark(0, 0).conversation;
        places.pull(&conversation, 7, 6, true);
        let has = |places: &Places| places.has(&conversation).map(|has| (has.epoch, has.seq, has.id));
        assert_eq!(has(&places), Some((7, 4, 40)), "what was handed over");
        for (seq, own) in [(7, true), (9, true), (8, true), (10, false)] {
            assert_eq!(places.offer(&mark(7, seq), own), Verdict::Pulling);
        }
        assert_eq!(has(&places), Some((7, 9, 90)));
        places.offer(&mark(8, 12), true);
        assert_eq!(has(&places), Some((7, 9, 90)), "not proved yet");
        places.restart(&conversation, 8, 3, 30);
        assert_eq!(has(&places), None);
        assert_eq!(places.offer(&mark(8, 4), false), Verdict::Pulling);
    }

    #[test]
    fn what_the_log_lost_is_not_waited_for() {
        let mut places = behind(7, 4);
        places.pull(&mark(0, 0).conversation, 7, 9, true);
        let known = places.known_top(&mark(0, 0).conversation);
        assert!(places.pulled(5, &mark(7, 6), known));
    }

    #[test]
    fn a_place_is_proved_by_the_message_there() {
        let place = |epoch, seq, id| Place::new(&mark(0, 0).conversation, epoch, seq, id);
        assert_eq!(prove(&place(7, 5, 50), 9, 8, Some(50)), Proof::Valid, "whatever the epoch");
        assert_eq!(prove(&place(7, 5, 50), 7, 8, Some(51)), Proof::OtherMessage);
        assert_eq!(prove(&place(7, 9, 90), 7, 8, None), Proof::Beyond);
        assert_eq!(prove(&place(7, 5, 50), 7, 8, None), Proof::Valid, "trimmed, same epoch");
        assert_eq!(prove(&place(7, 5, 50), 9, 8, None), Proof::Unknown);
        assert_eq!(prove(&place(0, 0, 0), 9, 8, None), Proof::Valid);
    }
}
