//! Who is online, as a value: heartbeats and farewells in, changes out.
//!
//! Pure: the time is handed in. The backend in Redis does the same in scripts
//! and is held to the same suite.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Change, Farewell, Found, Heard, Look, Rules};
use crate::types::UserId;

/// For how long it is remembered when somebody left, ms.
pub(super) const REMEMBERED_MS: i64 = 24 * 3_600 * 1_000;
/// Silence of all gateways after which nobody is taken for gone for a while.
pub(super) const SILENCE_MS: i64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Unix ms.
    heard: i64,
    /// Of the change that brought the user here.
    version: u64,
}

/// What the set can be made of again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CarriedOnline {
    /// User, last heartbeat, version.
    pub online: Vec<(UserId, i64, u64)>,
    /// User, when it left.
    pub left: Vec<(UserId, i64)>,
    /// The last version given.
    pub version: u64,
    /// When the last step was, unix ms.
    pub stepped: i64,
    /// Until when nobody is taken for gone, unix ms.
    pub held: i64,
}

/// The users that are online, and those that left lately.
#[derive(Debug, Default)]
pub(crate) struct Online {
    rules: Rules,
    users: HashMap<UserId, Entry>,
    by_heard: BTreeSet<(i64, UserId)>,
    /// How many were heard last in this second.
    counts: BTreeMap<i64, usize>,
    left: HashMap<UserId, i64>,
    by_left: BTreeSet<(i64, UserId)>,
    /// Who said goodbye, by when that was, and is still here.
    leaving: BTreeSet<(i64, UserId)>,
    version: u64,
    stepped: i64,
    held: i64,
}

impl Online {
    /// Nobody.
    #[must_use]
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes what happened, and looks for at most `most` users that are gone;
    /// returns the changes in the order of their versions. `now` in unix µs.
    pub(crate) fn step(
        &mut self,
        now: i64,
        heard: &[Heard],
        farewells: &[Farewell],
        most: usize,
    ) -> Vec<Change> {
        let now_ms = now / 1_000;
        self.hold(now);
        let mut changes = Vec::new();
        for heard in heard {
            let at = now_ms.saturating_sub(heard.age_ms);
            changes.extend(self.hear(heard.user, at, now));
        }
        for farewell in farewells {
            self.leave(farewell);
        }
        let is_held = now_ms < self.held;
        let (graced, silent) = (now_ms - self.rules.grace_ms, now_ms - self.rules.window_ms);
        for _ in 0..most {
            let gone = self.leaving.first().filter(|(at, _)| *at < graced);
            let gone = gone.or_else(|| self.by_heard.first().filter(|(at, _)| !is_held && *at < silent));
            let Some(&(_, user)) = gone else { break };
            changes.extend(self.expire(user, now));
        }
        self.forget(now_ms, most);
        changes
    }

    /// After a silence of everybody it is not known who was heard meanwhile.
    fn hold(&mut self, now: i64) {
        let now_ms = now / 1_000;
        if self.stepped == 0 {
            self.version = self.version.max(u64::try_from(now).unwrap_or(0));
        }
        if now_ms.saturating_sub(self.stepped) > SILENCE_MS {
            self.held = now_ms.saturating_add(self.rules.hold_ms);
        }
        self.stepped = now_ms;
    }

    fn hear(&mut self, user: UserId, at: i64, now: i64) -> Option<Change> {
        if self.left.get(&user).is_some_and(|left| at <= *left) {
            // From before the farewell.
            return None;
        }
        if !self.users.contains_key(&user) && at <= now / 1_000 - self.rules.window_ms {
            // Somebody was here once: no more is known by that.
            return None;
        }
        self.stay(user);
        self.set_left(user, None);
        match self.users.get(&user).copied() {
            Some(entry) if at > entry.heard => {
                self.set(user, Some(Entry { heard: at, ..entry }));
                None
            }
            Some(_) => None,
            None => {
                let version = self.next_version(now);
                self.set(user, Some(Entry { heard: at, version }));
                Some(Change { user, online: true, since: since(version), version })
            }
        }
    }

    fn leave(&mut self, farewell: &Farewell) {
        let Farewell { user, at } = *farewell;
        if self.users.get(&user).is_some_and(|entry| entry.heard <= at) {
            self.stay(user);
            self.leaving.insert((at, user));
            self.set_left(user, Some(at));
        }
    }

    fn stay(&mut self, user: UserId) {
        if let Some(left) = self.left.get(&user) {
            self.leaving.remove(&(*left, user));
        }
    }

    fn expire(&mut self, user: UserId, now: i64) -> Option<Change> {
        self.stay(user);
        let entry = self.set(user, None)?;
        let since = *self.left.get(&user).unwrap_or(&entry.heard);
        self.set_left(user, Some(since));
        Some(Change { user, online: false, since, version: self.next_version(now) })
    }

    fn forget(&mut self, now_ms: i64, most: usize) {
        let horizon = now_ms.saturating_sub(REMEMBERED_MS);
        for _ in 0..most {
            let Some(&(at, user)) = self.by_left.first() else { return };
            if at >= horizon {
                return;
            }
            self.set_left(user, None);
        }
    }

    fn next_version(&mut self, now: i64) -> u64 {
        self.version = u64::try_from(now).unwrap_or(0).max(self.version.saturating_add(1));
        self.version
    }

    fn set(&mut self, user: UserId, entry: Option<Entry>) -> Option<Entry> {
        let before = match entry {
            Some(entry) => self.users.insert(user, entry),
            None => self.users.remove(&user),
        };
        if let Some(Entry { heard, .. }) = before {
            self.by_heard.remove(&(heard, user));
            if let Some(count) = self.counts.get_mut(&second(heard)) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&second(heard));
                }
            }
        }
        if let Some(Entry { heard, .. }) = entry {
            self.by_heard.insert((heard, user));
            *self.counts.entry(second(heard)).or_default() += 1;
        }
        before
    }

    fn set_left(&mut self, user: UserId, at: Option<i64>) {
        let before = match at {
            Some(at) => self.left.insert(user, at),
            None => self.left.remove(&user),
        };
        if let Some(before) = before {
            self.by_left.remove(&(before, user));
        }
        if let Some(at) = at {
            self.by_left.insert((at, user));
        }
    }

    /// What is known of these users, in their order. `now` in unix µs.
    #[must_use]
    pub(crate) fn look(&self, now: i64, users: &[UserId]) -> Look {
        let find = |user: &UserId| {
            let left = self.left.get(user).copied();
            match self.users.get(user) {
                Some(entry) => Found {
                    user: *user,
                    online: true,
                    since: since(entry.version),
                    last_seen: left.unwrap_or(entry.heard),
                    version: entry.version,
                },
                None => Found::gone(*user, left.unwrap_or(0), self.version),
            }
        };
        let now_ms = now / 1_000;
        let is_settled = now_ms >= self.held && now_ms.saturating_sub(self.stepped) <= SILENCE_MS;
        Look { found: users.iter().map(find).collect(), is_settled }
    }

    /// Users that are online.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Users heard at or after `from`, unix ms. Costs what was heard in one
    /// second, and the seconds since.
    #[must_use]
    pub(crate) fn heard_since(&self, from: i64) -> usize {
        let (next, of) = (second(from) + 1, |at: i64| (at, UserId::SYSTEM));
        let partly = self.by_heard.range(of(from)..of(next.saturating_mul(1_000))).count();
        partly + self.counts.range(next..).map(|(_, count)| count).sum::<usize>()
    }

    /// As it stands.
    #[must_use]
    pub(crate) fn carry(&self) -> CarriedOnline {
        CarriedOnline {
            online: self.users.iter().map(|(user, entry)| (*user, entry.heard, entry.version)).collect(),
            left: self.by_left.iter().map(|(at, user)| (*user, *at)).collect(),
            version: self.version,
            stepped: self.stepped,
            held: self.held,
        }
    }

    /// Goes on with one that stood elsewhere.
    pub(crate) fn resume(&mut self, carried: CarriedOnline) {
        for (user, heard, version) in carried.online {
            self.set(user, Some(Entry { heard, version }));
        }
        for (user, at) in carried.left {
            self.set_left(user, Some(at));
            if self.users.contains_key(&user) {
                self.leaving.insert((at, user));
            }
        }
        self.version = self.version.max(carried.version);
        self.stepped = self.stepped.max(carried.stepped);
        self.held = carried.held;
    }
}

/// A version is the time of its change, unless that clock went back.
pub(super) fn since(version: u64) -> i64 {
    i64::try_from(version / 1_000).unwrap_or(i64::MAX)
}

const fn second(at: i64) -> i64 {
    at.div_euclid(1_000)
}

#[cfg(test)]
mod tests;
