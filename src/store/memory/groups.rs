//! Groups in memory.

use super::super::{
    Audience, Change, Changed, Created, Description, History, Joined, Member, MemberChange, MembersPage,
    Role, Roster,
};
use super::log::Log;
use super::{MemoryStore, State};
use crate::types::{ConversationId, GatewayRef, UserId};

impl MemoryStore {
    pub(crate) fn create(
        &self,
        group: &ConversationId,
        members: &[(UserId, Role)],
        history: History,
    ) -> Created {
        let mut state = self.state.lock();
        if let Some(log) = state.logs.get(group) {
            let mut wanted: Vec<UserId> = members.iter().map(|(user, _)| *user).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let same = log.members.keys().copied().eq(wanted);
            return if same { Created::Same(log.describe(true)) } else { Created::Other };
        }
        let mut log = Log::new();
        let (epoch, mver) = state.former.remove(group).unwrap_or_default();
        (log.history, log.mver, log.epoch) = (history, mver + 1, log.epoch.max(epoch + 1));
        for (user, role) in members {
            log.members.insert(*user, Member { role: *role, since_seq: 0, mute_until: 0 });
            state.touch(*user, group);
        }
        let description = log.describe(true);
        state.logs.insert(group.clone(), log);
        Created::New(description)
    }

    pub(crate) fn delete(&self, group: &ConversationId) -> Option<Audience> {
        let mut state = self.state.lock();
        let mut log = state.logs.remove(group)?;
        for index in state.indexes.values_mut() {
            index.remove(group);
        }
        log.mver += 1;
        log.members.clear();
        state.former.insert(group.clone(), (log.epoch, log.mver));
        Some(log.audience())
    }

    pub(crate) fn describe(&self, conversation: &ConversationId) -> Option<Description> {
        let is_group = matches!(conversation, ConversationId::Group(_));
        self.state.lock().logs.get(conversation).map(|log| log.describe(is_group))
    }

    pub(crate) fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Option<MembersPage> {
        let state = self.state.lock();
        let log = state.logs.get(group)?;
        let rest = log.members.iter().filter(|(user, _)| after.is_none_or(|after| **user > after));
        let mut members: Vec<_> =
            rest.take(limit.saturating_add(1)).map(|(user, member)| (*user, *member)).collect();
        let has_more = members.len() > limit;
        members.truncate(limit);
        Some(MembersPage { members, has_more })
    }

    pub(crate) fn put_member(&self, group: &ConversationId, user: UserId, change: MemberChange) -> Change {
        self.change(group, |state| {
            let Some(log) = state.logs.get_mut(group) else { return Changed::NotFound };
            if log.blacklist.contains(&user) {
                return Changed::Blocked;
            }
            let top = log.seq();
            match log.members.get(&user).copied() {
                Some(before) => {
                    let after = Member {
                        role: change.role.unwrap_or(before.role),
                        mute_until: change.mute_until.unwrap_or(before.mute_until),
                        ..before
                    };
                    if after == before {
                        return Changed::Same;
                    }
                    log.members.insert(user, after);
                    Changed::Updated { before, after }
                }
                None => {
                    let since_seq = match change.history.unwrap_or(log.history) {
                        History::SinceJoining => top,
                        History::Full => 0,
                    };
                    let member = Member {
                        role: change.role.unwrap_or_default(),
                        since_seq,
                        mute_until: change.mute_until.unwrap_or(0),
                    };
                    log.members.insert(user, member);
                    state.touch(user, group);
                    Changed::Joined(member)
                }
            }
        })
    }

    pub(crate) fn remove_member(&self, group: &ConversationId, user: UserId) -> Change {
        self.change(group, |state| state.remove(group, user))
    }

    pub(crate) fn block(&self, conversation: &ConversationId, user: UserId, blocked: bool) -> Change {
        self.change(conversation, |state| {
            let is_group = matches!(conversation, ConversationId::Group(_));
            if !state.logs.contains_key(conversation) {
                if is_group {
                    return Changed::NotFound;
                }
                state.logs.insert(conversation.clone(), Log::new());
            }
            let Some(log) = state.logs.get_mut(conversation) else { return Changed::NotFound };
            let changed = if blocked { log.blacklist.insert(user) } else { log.blacklist.remove(&user) };
            let removed = is_group && blocked && state.remove(conversation, user) == Changed::Removed;
            match (changed, removed) {
                (_, true) => Changed::Removed,
                (true, false) => Changed::Blocked,
                (false, false) => Changed::Same,
            }
        })
    }

    pub(crate) fn blacklist(&self, conversation: &ConversationId) -> Vec<UserId> {
        let state = self.state.lock();
        state.logs.get(conversation).into_iter().flat_map(|log| log.blacklist.iter().copied()).collect()
    }

    pub(crate) fn roster(&self, group: &ConversationId, users: &[UserId]) -> Option<Roster> {
        let state = self.state.lock();
        let log = state.logs.get(group)?;
        let members = users.iter().map(|user| log.members.get(user).copied()).collect();
        Some(Roster { audience: log.audience(), members })
    }

    pub(crate) fn join(
        &self,
        gateway: &GatewayRef,
        wanted: &[(ConversationId, UserId)],
    ) -> Vec<Option<Joined>> {
        let mut state = self.state.lock();
        let mut join = |(group, user): &(ConversationId, UserId)| {
            let log = state.logs.get_mut(group)?;
            let member = *log.members.get(user)?;
            log.gateways.insert(gateway.id.clone(), gateway.epoch);
            let members = u64::try_from(log.members.len()).unwrap_or(u64::MAX);
            Some(Joined { member, mver: log.mver, members, top: log.top() })
        };
        wanted.iter().map(&mut join).collect()
    }

    pub(crate) fn leave(&self, gateway: &GatewayRef, groups: &[ConversationId]) {
        let mut state = self.state.lock();
        for group in groups {
            if let Some(log) = state.logs.get_mut(group)
                && log.gateways.get(&gateway.id) == Some(&gateway.epoch)
            {
                log.gateways.remove(&gateway.id);
            }
        }
    }

    /// Counts a change of the members, whatever made it.
    fn change(&self, group: &ConversationId, change: impl FnOnce(&mut State) -> Changed) -> Change {
        let mut state = self.state.lock();
        let changed = change(&mut state);
        let Some(log) = state.logs.get_mut(group) else {
            return Change { changed, audience: Audience::default() };
        };
        if matches!(changed, Changed::Joined(_) | Changed::Updated { .. } | Changed::Removed) {
            log.mver += 1;
        }
        Change { changed, audience: log.audience() }
    }
}

impl State {
    fn remove(&mut self, group: &ConversationId, user: UserId) -> Changed {
        let Some(log) = self.logs.get_mut(group) else { return Changed::NotFound };
        if log.members.remove(&user).is_none() {
            return Changed::NotFound;
        }
        log.cursors.remove(&user);
        if let Some(index) = self.indexes.get_mut(&user) {
            index.remove(group);
        }
        Changed::Removed
    }
}
