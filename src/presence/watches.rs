//! Whom the connections of one gateway watch, and what they were told.
//!
//! Pure: states in, what is to be told out. The state of a user is kept once,
//! however many watch it; a watcher is told a version once and never an older
//! one, because whoever begins to watch is told what is kept here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::ops::Bound;

use super::Look;
use crate::types::{DeviceId, UserId};

/// What watchers of a user were told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Whether online.
    pub online: bool,
    /// Since when, unix ms; 0 = not known.
    pub since: i64,
    /// Only grows.
    pub version: u64,
    /// The devices, as of that version.
    pub devices: Vec<DeviceId>,
}

/// More users than one connection may watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more users than one connection may watch: {most}")]
pub(crate) struct TooMany {
    /// How many it may.
    pub most: usize,
}

#[derive(Debug)]
struct Watched<K> {
    state: State,
    watchers: Vec<K>,
    /// Those who are about to: the state is kept for them already.
    expected: usize,
}

#[derive(Debug, Default)]
struct Watcher {
    users: HashSet<UserId>,
    /// It asked for them, and has not ended that since.
    wanted: HashSet<UserId>,
    /// Of whom it could not be told the last: there was no room.
    missed: HashSet<UserId>,
}

/// Everybody who watches or is watched.
#[derive(Debug)]
pub(crate) struct Watches<K> {
    users: BTreeMap<UserId, Watched<K>>,
    watchers: HashMap<K, Watcher>,
    /// The last one that was looked at.
    cursor: Option<UserId>,
}

impl<K> Default for Watches<K> {
    fn default() -> Self {
        Self { users: BTreeMap::new(), watchers: HashMap::new(), cursor: None }
    }
}

impl<K: Copy + Eq + Hash> Watches<K> {
    /// Whether nobody is watched.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Users that somebody watches.
    #[must_use]
    pub(crate) fn watched(&self) -> usize {
        self.users.len()
    }

    /// `by` asks for these users: their states are kept from now on, until
    /// [`Self::unexpect`]; in between it may [`Self::begin`].
    pub(crate) fn expect(&mut self, by: K, users: &[UserId], most: usize) -> Result<(), TooMany> {
        let (mut all, mut new) = (0, users.len());
        if let Some(watcher) = self.watchers.get(&by) {
            let known = |user: &&UserId| watcher.users.contains(user) || watcher.wanted.contains(user);
            new = users.iter().filter(|user| !known(user)).count();
            all = watcher.users.union(&watcher.wanted).count();
        }
        if all + new > most {
            return Err(TooMany { most });
        }
        self.watchers.entry(by).or_default().wanted.extend(users);
        for user in users {
            let fresh = || Watched { state: State::default(), watchers: Vec::new(), expected: 0 };
            self.users.entry(*user).or_insert_with(fresh).expected += 1;
        }
        Ok(())
    }

    /// They are not expected any more: whom `by` does not watch by now it was
    /// not to watch.
    pub(crate) fn unexpect(&mut self, by: K, users: &[UserId]) {
        if let Some(watcher) = self.watchers.get_mut(&by) {
            for user in users {
                watcher.wanted.remove(user);
            }
            self.dismiss(by);
        }
        for user in users {
            if let Some(watched) = self.users.get_mut(user) {
                watched.expected = watched.expected.saturating_sub(1);
                self.release(*user);
            }
        }
    }

    /// Who watches this user.
    pub(crate) fn watchers(&self, user: UserId) -> impl Iterator<Item = K> + '_ {
        self.users.get(&user).into_iter().flat_map(|watched| watched.watchers.iter().copied())
    }

    /// Whom `by` watches.
    #[must_use]
    pub(crate) fn users(&self, by: K) -> Vec<UserId> {
        self.watchers.get(&by).map(|watcher| watcher.users.iter().copied().collect()).unwrap_or_default()
    }

    /// From now on `by` watches these users, as far as it still wants to;
    /// returns what it is told first. What was read of them is taken in
    /// before ([`Self::news`]).
    pub(crate) fn begin(&mut self, by: K, users: &[UserId]) -> Vec<(UserId, State)> {
        let Some(watcher) = self.watchers.get_mut(&by) else { return Vec::new() };
        let mut told = Vec::with_capacity(users.len());
        for user in users {
            let Some(watched) = self.users.get_mut(user) else { continue };
            if !watcher.wanted.contains(user) && !watcher.users.contains(user) {
                continue;
            }
            if watcher.users.insert(*user) {
                watched.watchers.push(by);
            }
            watcher.missed.remove(user);
            told.push((*user, watched.state.clone()));
        }
        told
    }

    /// `by` watches them no more; without users, nobody.
    pub(crate) fn end(&mut self, by: K, users: &[UserId]) {
        let Some(watcher) = self.watchers.get_mut(&by) else { return };
        let ended: Vec<UserId> = if users.is_empty() {
            watcher.wanted.clear();
            watcher.users.drain().collect()
        } else {
            for user in users {
                watcher.wanted.remove(user);
            }
            users.iter().copied().filter(|user| watcher.users.remove(user)).collect()
        };
        for user in &ended {
            watcher.missed.remove(user);
        }
        self.dismiss(by);
        for user in ended {
            if let Some(watched) = self.users.get_mut(&user) {
                watched.watchers.retain(|watcher| *watcher != by);
                self.release(user);
            }
        }
    }

    fn dismiss(&mut self, by: K) {
        if self.watchers.get(&by).is_some_and(|watcher| watcher.users.is_empty() && watcher.wanted.is_empty())
        {
            self.watchers.remove(&by);
        }
    }

    fn release(&mut self, user: UserId) {
        if self.users.get(&user).is_some_and(|watched| watched.watchers.is_empty() && watched.expected == 0) {
            self.users.remove(&user);
        }
    }

    /// Takes a state in; returns who is to be told of it. An older one than
    /// what is known is nothing new, nor is another version of being away.
    pub(crate) fn change(&mut self, user: UserId, state: State) -> &[K] {
        let Some(watched) = self.users.get_mut(&user).filter(|known| known.state.version < state.version)
        else {
            return &[];
        };
        let is_news = state.online || watched.state.online;
        watched.state = state;
        if is_news { &watched.watchers } else { &[] }
    }

    /// Of what was read, the states that [`Self::change`] would take as news.
    /// While it is not settled nobody is taken for gone.
    #[must_use]
    pub(crate) fn news(&self, look: &Look) -> Vec<(UserId, State)> {
        let news = look.found.iter().filter(|found| {
            let known = self.users.get(&found.user).filter(|known| known.state.version < found.version);
            known.is_some_and(|known| found.online || look.is_settled || !known.state.online)
        });
        let state = |found: &super::Found| State {
            online: found.online,
            since: found.since,
            version: found.version,
            devices: Vec::new(),
        };
        news.map(|found| (found.user, state(found))).collect()
    }

    /// There was no room for the last that `by` was to be told of `user`.
    pub(crate) fn missed(&mut self, by: K, user: UserId) {
        if let Some(watcher) = self.watchers.get_mut(&by) {
            watcher.missed.insert(user);
        }
    }

    /// What could not be told before.
    pub(crate) fn take_missed(&mut self) -> Vec<(K, UserId, State)> {
        let mut missed = Vec::new();
        for (by, watcher) in &mut self.watchers {
            for user in watcher.missed.drain() {
                if let Some(watched) = self.users.get(&user) {
                    missed.push((*by, user, watched.state.clone()));
                }
            }
        }
        missed
    }

    /// The next `count` users to be looked at, in turn; the second value says
    /// that all have had theirs.
    pub(crate) fn next(&mut self, count: usize) -> (Vec<UserId>, bool) {
        let from = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let users: Vec<UserId> =
            self.users.range((from, Bound::Unbounded)).take(count).map(|(user, _)| *user).collect();
        let all = users.len() < count;
        self.cursor = if all { None } else { users.last().copied() };
        (users, all)
    }

    /// The next look begins with the first one again.
    pub(crate) const fn start_over(&mut self) {
        self.cursor = None;
    }

    /// Who watches whom.
    #[must_use]
    pub(crate) fn carry(&self) -> Vec<(K, Vec<UserId>)> {
        self.watchers.iter().map(|(by, watcher)| (*by, watcher.users.iter().copied().collect())).collect()
    }

    /// What was told of whom.
    #[must_use]
    pub(crate) fn states(&self) -> Vec<(UserId, State)> {
        self.users.iter().map(|(user, watched)| (*user, watched.state.clone())).collect()
    }

    /// Goes on with somebody who watched these users elsewhere, and was told
    /// all of what `states` says.
    pub(crate) fn resume(&mut self, by: K, users: &[UserId], states: &HashMap<UserId, State>) {
        for user in users {
            let state = || states.get(user).cloned().unwrap_or_default();
            let fresh = || Watched { state: state(), watchers: Vec::new(), expected: 0 };
            let watched = self.users.entry(*user).or_insert_with(fresh);
            if self.watchers.entry(by).or_default().users.insert(*user) {
                watched.watchers.push(by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;

    fn user(id: i64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn state(online: bool, version: u64) -> State {
        State { online, since: 1, version, devices: Vec::new() }
    }

    fn watching(users: &[UserId]) -> Watches<u8> {
        let mut watches = Watches::default();
        watches.expect(1, users, 10).unwrap();
        watches.begin(1, users);
        watches.unexpect(1, users);
        watches
    }

    #[test]
    fn a_version_is_told_once_and_never_an_older_one() {
        let mut watches = watching(&[user(7)]);
        assert_eq!(watches.change(user(7), state(true, 5)), [1]);
        assert!(watches.change(user(7), state(true, 5)).is_empty());
        assert!(watches.change(user(7), state(false, 4)).is_empty());
        assert_eq!(watches.change(user(7), state(false, 6)), [1]);
        assert!(watches.change(user(7), state(false, 9)).is_empty(), "gone is gone");
        assert!(watches.change(user(8), state(true, 9)).is_empty(), "nobody watches");
        assert_eq!(watches.change(user(7), state(true, 10)), [1]);
        assert_eq!(watches.change(user(7), state(true, 12)), [1], "it was away in between");
    }

    #[test]
    fn what_comes_before_the_first_look_is_in_it() {
        let mut watches = Watches::default();
        watches.expect(1, &[user(7)], 10).unwrap();
        assert!(watches.change(user(7), state(true, 5)).is_empty());
        assert_eq!(watches.begin(1, &[user(7)]), [(user(7), state(true, 5))]);
        watches.unexpect(1, &[user(7)]);
        assert_eq!(watches.change(user(7), state(false, 6)), [1]);
        watches.end(1, &[user(7)]);
        assert!(watches.is_empty() && watches.carry().is_empty());
    }

    #[test]
    fn what_is_ended_before_it_began_does_not_begin() {
        let mut watches = Watches::default();
        watches.expect(1, &[user(7), user(8)], 10).unwrap();
        watches.end(1, &[user(7)]);
        assert_eq!(watches.begin(1, &[user(7), user(8)]).len(), 1);
        watches.unexpect(1, &[user(7), user(8)]);
        assert_eq!(watches.carry(), [(1, vec![user(8)])]);
        watches.expect(2, &[user(7)], 10).unwrap();
        watches.end(2, &[]);
        watches.unexpect(2, &[user(7)]);
        assert_eq!((watches.watched(), watches.carry().len()), (1, 1));
    }

    #[test]
    fn only_so_many_may_be_watched() {
        let mut watches = watching(&[user(1), user(2)]);
        assert_eq!(watches.expect(1, &[user(3)], 2), Err(TooMany { most: 2 }));
        assert_eq!(watches.expect(1, &[user(2), user(1)], 2), Ok(()), "the same again");
        watches.unexpect(1, &[user(1), user(2)]);
        watches.end(1, &[]);
        assert!(watches.is_empty());
    }

    #[test]
    fn a_look_takes_nobody_for_gone_before_it_is_settled() {
        let mut watches = watching(&[user(7)]);
        watches.change(user(7), state(true, 5));
        let found = vec![Found::gone(user(7), 0, 8)];
        assert!(watches.news(&Look { found: found.clone(), is_settled: false }).is_empty());
        assert_eq!(watches.news(&Look { found, is_settled: true }).len(), 1);
    }

    #[test]
    fn everybody_has_his_turn() {
        let mut watches = watching(&[user(1), user(2), user(3)]);
        assert_eq!(watches.next(2), (vec![user(1), user(2)], false));
        assert_eq!(watches.next(2), (vec![user(3)], true));
        assert_eq!(watches.next(2), (vec![user(1), user(2)], false));
    }

    #[test]
    fn what_was_missed_is_told_as_it_stands_by_then() {
        let mut watches = watching(&[user(7)]);
        watches.change(user(7), state(true, 5));
        watches.missed(1, user(7));
        watches.change(user(7), state(false, 6));
        assert_eq!(watches.take_missed(), [(1, user(7), state(false, 6))]);
        assert!(watches.take_missed().is_empty());
    }

    #[test]
    fn watches_go_on_elsewhere() {
        let mut watches = watching(&[user(7), user(8)]);
        watches.change(user(7), state(true, 5));
        let states = watches.states().into_iter().collect();
        let mut other = Watches::default();
        for (by, users) in watches.carry() {
            other.resume(by, &users, &states);
        }
        assert!(other.change(user(7), state(true, 5)).is_empty());
        assert_eq!(other.change(user(7), state(false, 6)), [1]);
    }
}
