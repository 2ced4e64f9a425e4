//! A group with members online here: who they are, and the end of what was
//! said in a busy one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::seat::Seating;
use super::tail::Tail;
use crate::message::Mark;
use crate::types::{ConversationId, GatewayRef, UserId};

/// A group as this gateway sees it.
#[derive(Debug)]
pub(crate) struct Room {
    /// Which.
    pub conversation: ConversationId,
    pub(super) state: Mutex<State>,
}

/// A member online here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// He sees what has a larger seq.
    pub(super) since: i64,
    /// The state of the group he was taken in at.
    mver: u64,
    /// When he was taken in, counted.
    turn: Turn,
}

/// Which of all entries of a room one is: what was read before it was made
/// says nothing about it.
pub(crate) type Turn = u64;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) members: BTreeMap<UserId, Entry>,
    /// Of these, if they were looked up since one of them changed.
    pub(super) seating: Option<Seating>,
    turns: Turn,
    /// The oldest state of the group that any of these entries is of.
    pub(super) mver: u64,
    /// Gateways with a member online, as last heard, and when.
    gateways: (Vec<GatewayRef>, u64),
    /// Epoch and seq of the newest message that was to be delivered here.
    latest: (u64, i64),
    /// The second of the last message, and how many came in it.
    pace: (u64, u32),
    tail: Tail,
    /// Monotonic ms of the last message that was kept, or since when the room
    /// is empty.
    used: u64,
}

/// A room, taken apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct CarriedRoom {
    /// The state of the group it is of.
    pub mver: u64,
    /// Epoch and seq of the newest message that was to be delivered here.
    pub latest: (u64, i64),
    /// Members online here, what each sees, and the state of the group he was
    /// taken in at.
    pub members: Vec<(UserId, i64, u64)>,
}

/// A tail that nobody added to for this long is forgotten, and a room that is
/// empty for this long is left.
pub(super) const IDLE_MS: u64 = 30_000;

impl Room {
    /// An empty one.
    pub(super) fn new(conversation: ConversationId, now_ms: u64) -> Self {
        let state = State { used: now_ms, ..State::default() };
        Self { conversation, state: Mutex::new(state) }
    }

    /// Forgets an idle tail; returns whether the room has been empty for a
    /// while.
    pub(super) fn is_left(&self, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        let idle = now_ms.saturating_sub(state.used) >= IDLE_MS;
        if now_ms.saturating_sub(state.pace.0.saturating_mul(1_000)) >= IDLE_MS {
            state.seating = None;
        }
        if idle && !state.tail.is_empty() {
            state.tail = Tail::default();
            state.used = now_ms;
        } else if !state.members.is_empty() {
            state.used = now_ms;
        } else if idle {
            return true;
        }
        false
    }

    /// Takes a user in, as he was at `mver`; returns whether he was out.
    pub(crate) fn enter(&self, user: UserId, since: i64, mver: u64) -> bool {
        let mut state = self.state.lock();
        // What is known of the others may be older, and so may this.
        state.mver = if state.members.is_empty() { mver } else { state.mver.min(mver) };
        state.turns += 1;
        let turn = state.turns;
        state.members_mut().insert(user, Entry { since, mver, turn }).is_none()
    }

    /// The change `mver`, about these users, is applied; it is not where there
    /// is another one before it, or one of them was read before it.
    pub(crate) fn advance(&self, mver: u64, users: &[UserId]) {
        let mut state = self.state.lock();
        let mut entries = users.iter().filter_map(|user| state.members.get(user));
        let follows = state.mver > 0 && state.mver.checked_add(1) == Some(mver);
        if follows && entries.all(|entry| entry.mver >= mver) {
            state.mver = mver;
        }
    }

    /// What is known of the members counts for nothing any more.
    pub(crate) fn doubt(&self) {
        self.state.lock().mver = 0;
    }

    /// Whether a user online here is in it, and since which seq.
    #[must_use]
    pub(crate) fn since(&self, user: UserId) -> Option<i64> {
        self.state.lock().members.get(&user).map(|entry| entry.since)
    }

    /// Members online here, and what each sees.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<(UserId, i64)> {
        self.state.lock().members.iter().map(|(user, entry)| (*user, entry.since)).collect()
    }

    /// The same, unless that may be older than the state `mver` of the group:
    /// then somebody may be among them who is out.
    #[must_use]
    pub(crate) fn members_at(&self, mver: u64) -> Option<Vec<(UserId, i64)>> {
        let state = self.state.lock();
        let known = state.mver >= mver || state.members.is_empty();
        known.then(|| state.members.iter().map(|(user, entry)| (*user, entry.since)).collect())
    }

    /// How many members are online here.
    #[must_use]
    pub(crate) fn online(&self) -> usize {
        self.state.lock().members.len()
    }

    /// The state of the group its entries are at least of.
    #[must_use]
    pub(crate) fn mver(&self) -> u64 {
        self.state.lock().mver
    }

    /// Members online here, to be read again: see [`Self::reload`].
    #[must_use]
    pub(crate) fn turns(&self) -> Vec<(UserId, Turn)> {
        self.state.lock().members.iter().map(|(user, entry)| (*user, entry.turn)).collect()
    }

    /// The same of one user.
    #[must_use]
    pub(crate) fn turn(&self, user: UserId) -> Option<Turn> {
        self.state.lock().members.get(&user).map(|entry| entry.turn)
    }

    /// What is known of it, for another process.
    #[must_use]
    pub(crate) fn carry(&self) -> CarriedRoom {
        let state = self.state.lock();
        let members = state.members.iter().map(|(user, entry)| (*user, entry.since, entry.mver));
        CarriedRoom { mver: state.mver, latest: state.latest, members: members.collect() }
    }

    /// Goes on with what another process knew.
    pub(crate) fn resume(&self, carried: &CarriedRoom) {
        for (user, since, mver) in &carried.members {
            self.enter(*user, *since, *mver);
        }
        let mut state = self.state.lock();
        (state.mver, state.latest) = (carried.mver, carried.latest);
    }

    /// Takes over entries read at `mver`, as far as what is here is not newer;
    /// `None` = no member any more. Returns who is out.
    pub(crate) fn reload(&self, mver: u64, entries: &[(UserId, Turn, Option<i64>)]) -> Vec<UserId> {
        let mut state = self.state.lock();
        if mver < state.mver {
            return Vec::new();
        }
        // Whoever came meanwhile is as he was then.
        let last = entries.iter().map(|(_, turn, _)| *turn).max().unwrap_or(0);
        let later = state.members.values().filter(|entry| entry.turn > last);
        state.mver = later.map(|entry| entry.mver).min().map_or(mver, |oldest| oldest.min(mver));
        let mut out = Vec::new();
        for (user, turn, since) in entries {
            let Some(known) = state.members_mut().get_mut(user).filter(|known| known.turn == *turn) else {
                continue;
            };
            match since {
                Some(since) => known.since = *since,
                None => {
                    state.members_mut().remove(user);
                    out.push(*user);
                }
            }
        }
        out
    }

    /// Takes a user out, unless he was taken in since `turn`; returns whether.
    pub(crate) fn leave_at(&self, user: UserId, turn: Turn) -> bool {
        let mut state = self.state.lock();
        let same = state.members.get(&user).is_some_and(|entry| entry.turn == turn);
        if same {
            state.members_mut().remove(&user);
        }
        same
    }

    /// Takes a user out, unless he is here after all: whoever comes is in the
    /// hub before he is taken in.
    pub(crate) fn leave_unless(&self, user: UserId, is_here: impl FnOnce() -> bool) {
        let mut state = self.state.lock();
        // One of his connections may have gone also where he has another one.
        let members = state.members_mut();
        if !is_here() {
            members.remove(&user);
        }
    }

    /// Remembers which gateways have a member online.
    pub(crate) fn set_gateways(&self, gateways: &[GatewayRef], now_ms: u64) {
        let mut state = self.state.lock();
        if state.gateways.0 != gateways {
            state.gateways.0 = gateways.to_vec();
        }
        state.gateways.1 = now_ms;
    }

    /// Which gateways have a member online, if heard within `age_ms`.
    #[must_use]
    pub(crate) fn gateways(&self, now_ms: u64, age_ms: u64) -> Option<Vec<GatewayRef>> {
        let state = self.state.lock();
        let (gateways, at) = &state.gateways;
        (*at > 0 && now_ms.saturating_sub(*at) <= age_ms).then(|| gateways.clone())
    }

    /// A message is about to be delivered to whoever is in by then.
    pub(crate) fn hear(&self, mark: &Mark) {
        let mut state = self.state.lock();
        state.latest = state.latest.max((mark.epoch, mark.seq));
    }

    /// Epoch and seq of the newest message heard of.
    #[must_use]
    pub(crate) fn latest(&self) -> (u64, i64) {
        self.state.lock().latest
    }

    /// Counts a message; returns how many there were in this second.
    pub(crate) fn count(&self, now_ms: u64) -> u32 {
        let mut state = self.state.lock();
        let second = now_ms / 1_000;
        let pace = &mut state.pace;
        *pace = if pace.0 == second { (second, pace.1.saturating_add(1)) } else { (second, 1) };
        pace.1
    }

    /// Keeps a message that members will come and pull: its encoded `Envelope`.
    pub(crate) fn keep(&self, mark: &Arc<Mark>, envelope: &Bytes, now_ms: u64) {
        let mut state = self.state.lock();
        state.tail.keep(mark, envelope);
        state.used = now_ms;
    }

    /// Keeps a message if some are kept: the tail ends where the log does.
    pub(crate) fn keep_on(&self, mark: &Arc<Mark>, envelope: &Bytes, now_ms: u64) {
        let mut state = self.state.lock();
        if state.tail.is_empty() {
            return;
        }
        if now_ms.saturating_sub(state.used) < IDLE_MS {
            state.tail.keep(mark, envelope);
        } else {
            state.tail = Tail::default();
        }
    }

    /// Forgets what was kept.
    pub(crate) fn forget_tail(&self) {
        self.state.lock().tail = Tail::default();
    }

    /// The kept messages from `from` on; see [`Tail::from`].
    #[must_use]
    pub(crate) fn tail(&self, from: i64) -> Option<Vec<(Arc<Mark>, Bytes)>> {
        self.state.lock().tail.from(from)
    }
}

impl State {
    /// To be changed.
    fn members_mut(&mut self) -> &mut BTreeMap<UserId, Entry> {
        self.seating = None;
        &mut self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: i64) -> Arc<Mark> {
        let conversation = ConversationId::parse("g:a").unwrap();
        Arc::new(Mark { conversation, epoch: 7, seq, id: seq })
    }

    fn seqs(room: &Room, from: i64) -> Option<Vec<i64>> {
        room.tail(from).map(|tail| tail.iter().map(|(mark, _)| mark.seq).collect())
    }

    #[test]
    fn what_is_kept_goes_on_while_somebody_may_come() {
        let room = Room::new(mark(1).conversation.clone(), 0);
        let bytes = Bytes::from_static(b"x");
        room.keep_on(&mark(1), &bytes, 0);
        assert_eq!(seqs(&room, 1), None, "nothing to go on with");
        room.keep(&mark(2), &bytes, 0);
        room.keep_on(&mark(3), &bytes, IDLE_MS - 1);
        assert_eq!(seqs(&room, 2), Some(vec![2, 3]));
        room.keep_on(&mark(4), &bytes, IDLE_MS);
        assert_eq!(seqs(&room, 2), None, "nobody comes any more");
    }

    #[test]
    fn a_room_is_as_old_as_its_oldest_entry() {
        let room = Room::new(mark(1).conversation.clone(), 0);
        let user = |id| UserId::new(id).unwrap();
        room.enter(user(1), 0, 5);
        room.enter(user(2), 0, 7);
        assert_eq!(room.mver(), 5);
        room.advance(6, &[user(1)]);
        assert_eq!(room.mver(), 5, "he was read before it");
        room.advance(6, &[user(2), user(3)]);
        room.advance(8, &[]);
        assert_eq!(room.mver(), 6);
        assert_eq!(room.reload(9, &[(user(1), 1, None), (user(2), 2, Some(3))]), [user(1)]);
        assert_eq!((room.since(user(1)), room.since(user(2)), room.mver()), (None, Some(3), 9));
        assert!(room.reload(8, &[(user(2), 2, None)]).is_empty(), "read before that");
        assert_eq!((room.since(user(2)), room.mver()), (Some(3), 9));
        room.enter(user(3), 0, 8);
        assert_eq!(room.mver(), 8);
        assert_eq!(room.members_at(8).unwrap().len(), 2);
        assert_eq!(room.members_at(9), None, "one of them may be out");
        for user in [user(2), user(3)] {
            room.leave_unless(user, || false);
        }
        assert_eq!(room.members_at(9), Some(vec![]));
    }

    #[test]
    fn what_was_read_before_a_user_came_back_says_nothing_of_him() {
        let room = Room::new(mark(1).conversation.clone(), 0);
        let user = |id| UserId::new(id).unwrap();
        room.enter(user(1), 0, 5);
        room.enter(user(2), 0, 5);
        let read = room.turns().into_iter().map(|(user, turn)| (user, turn, None)).collect::<Vec<_>>();
        room.leave_unless(user(1), || false);
        room.enter(user(1), 7, 7);
        assert_eq!(room.reload(8, &read), [user(2)]);
        assert_eq!((room.since(user(1)), room.mver()), (Some(7), 7));
        let turn = room.turn(user(1)).unwrap();
        room.enter(user(1), 9, 9);
        assert!(!room.leave_at(user(1), turn));
        assert!(room.leave_at(user(1), room.turn(user(1)).unwrap()));
    }
}
