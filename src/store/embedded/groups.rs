//! Changing groups and positions.

use super::engine::EngineError;
use super::rows::{self, Activity, CursorRow, Former, Head, MemberRow, Space};
use super::staged::Staged;
use crate::store::{Changed, Created, Cursor, Description, History, Member, MemberChange, Progress, Role};
use crate::types::{ConversationId, UserId, unix_ms};

/// Users read at a time.
const STEP: usize = 1_000;

impl Head {
    pub(super) fn describe(&self, conversation: &ConversationId) -> Description {
        let is_group = matches!(conversation, ConversationId::Group(_));
        Description {
            epoch: self.epoch,
            top: self.top,
            first_available: self.first_available(),
            mver: self.mver,
            members: if is_group { self.members } else { 2 },
            created_at: self.created_at,
            history: if self.full_history { History::Full } else { History::SinceJoining },
        }
    }
}

fn put_member(staged: &mut Staged, group: &ConversationId, number: u64, user: UserId, member: Member) {
    staged.put(Space::State, rows::member(number, Some(user)), &MemberRow::from(member));
    staged.put(Space::State, rows::index(user, group), &Activity { at: unix_ms() });
}

/// All users of one kind of row.
fn users(staged: &Staged, prefix: &[u8]) -> Result<Vec<UserId>, EngineError> {
    let mut users = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = staged.engine().scan(Space::State, prefix, after.as_deref(), STEP)?;
        users.extend(rows.iter().filter_map(|(key, _)| rows::user(key)));
        if rows.len() < STEP {
            return Ok(users);
        }
        after = rows.into_iter().next_back().map(|(key, _)| key);
    }
}

/// Makes a group; reads what is on disk only.
pub(super) fn create(
    staged: &mut Staged,
    group: &ConversationId,
    members: &[(UserId, Role)],
    history: History,
) -> Result<Created, EngineError> {
    let wanted: std::collections::BTreeMap<UserId, Role> = members.iter().copied().collect();
    if let Some(head) = staged.head(group)? {
        let there = users(staged, &rows::member(head.number, None))?;
        let is_same = there.iter().eq(wanted.keys());
        return Ok(if is_same { Created::Same(head.describe(group)) } else { Created::Other });
    }
    let mut head = staged.new_head();
    // None of these comes twice, or who heard of a former group only would
    // trust what he knows of it.
    let former: Former = staged.get(Space::State, rows::former(group))?.unwrap_or_default();
    head.epoch = head.epoch.max(former.epoch.saturating_add(1));
    head.mver = former.mver.saturating_add(1);
    staged.remove(Space::State, rows::former(group));
    head.members = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
    head.full_history = history == History::Full;
    for (user, role) in wanted {
        put_member(staged, group, head.number, user, Member { role, since_seq: 0, mute_until: 0 });
    }
    let description = head.describe(group);
    staged.put_head(group, head);
    Ok(Created::New(description))
}

/// Removes a group; reads what is on disk only. Its messages go later. Returns
/// its last `mver`.
pub(super) fn delete(staged: &mut Staged, group: &ConversationId) -> Result<Option<u64>, EngineError> {
    let Some(head) = staged.head(group)? else { return Ok(None) };
    let members = users(staged, &rows::member(head.number, None))?;
    let cursors = users(staged, &rows::cursor(head.number, None))?;
    let blocked = users(staged, &rows::blocked(head.number, None))?;
    for user in members {
        staged.remove(Space::State, rows::member(head.number, Some(user)));
        staged.remove(Space::State, rows::index(user, group));
    }
    for user in cursors {
        staged.remove(Space::State, rows::cursor(head.number, Some(user)));
    }
    for user in blocked {
        staged.remove(Space::State, rows::blocked(head.number, Some(user)));
    }
    staged.put(Space::State, rows::doomed(head.number), &Activity::default());
    staged.remove_head(group);
    let mver = head.mver.saturating_add(1);
    let former = Former { epoch: head.epoch, mver, at: unix_ms() };
    staged.put(Space::State, rows::former(group), &former);
    Ok(Some(mver))
}

/// What a change left: the change, `mver` and the number of members.
pub(super) type After = (Changed, u64, u64);

fn after(staged: &mut Staged, group: &ConversationId, changed: Changed, mut head: Head) -> After {
    if matches!(changed, Changed::Joined(_) | Changed::Updated { .. } | Changed::Removed) {
        head.mver = head.mver.saturating_add(1);
    }
    let after = (changed, head.mver, head.members);
    if !matches!(changed, Changed::Same | Changed::NotFound) {
        staged.put_head(group, head);
    }
    after
}

fn is_blocked(staged: &Staged, head: &Head, user: UserId) -> Result<bool, EngineError> {
    Ok(head.blocked > 0
        && staged.get::<Activity>(Space::State, rows::blocked(head.number, Some(user)))?.is_some())
}

/// Adds or changes a member.
pub(super) fn put(
    staged: &mut Staged,
    group: &ConversationId,
    user: UserId,
    change: MemberChange,
) -> Result<After, EngineError> {
    let Some(mut head) = staged.head(group)? else { return Ok((Changed::NotFound, 0, 0)) };
    if is_blocked(staged, &head, user)? {
        return Ok((Changed::Blocked, head.mver, head.members));
    }
    let key = rows::member(head.number, Some(user));
    let Some(before) = staged.get::<MemberRow>(Space::State, key.clone())?.map(Member::from) else {
        let is_full = change.history.map_or(head.full_history, |history| history == History::Full);
        let member = Member {
            role: change.role.unwrap_or_default(),
            since_seq: if is_full { 0 } else { head.top },
            mute_until: change.mute_until.unwrap_or(0),
        };
        put_member(staged, group, head.number, user, member);
        head.members = head.members.saturating_add(1);
        return Ok(after(staged, group, Changed::Joined(member), head));
    };
    let now = Member {
        role: change.role.unwrap_or(before.role),
        mute_until: change.mute_until.unwrap_or(before.mute_until),
        ..before
    };
    if now == before {
        return Ok((Changed::Same, head.mver, head.members));
    }
    staged.put(Space::State, key, &MemberRow::from(now));
    Ok(after(staged, group, Changed::Updated { before, after: now }, head))
}

fn take_out(
    staged: &mut Staged,
    group: &ConversationId,
    head: &mut Head,
    user: UserId,
) -> Result<bool, EngineError> {
    let key = rows::member(head.number, Some(user));
    if staged.get::<MemberRow>(Space::State, key.clone())?.is_none() {
        return Ok(false);
    }
    staged.remove(Space::State, key);
    staged.remove(Space::State, rows::cursor(head.number, Some(user)));
    staged.remove(Space::State, rows::index(user, group));
    head.members = head.members.saturating_sub(1);
    Ok(true)
}

/// Removes a member.
pub(super) fn remove(
    staged: &mut Staged,
    group: &ConversationId,
    user: UserId,
) -> Result<After, EngineError> {
    let Some(mut head) = staged.head(group)? else { return Ok((Changed::NotFound, 0, 0)) };
    let is_out = take_out(staged, group, &mut head, user)?;
    Ok(after(staged, group, if is_out { Changed::Removed } else { Changed::NotFound }, head))
}

/// Puts a user on the blacklist or takes him off it.
pub(super) fn block(
    staged: &mut Staged,
    conversation: &ConversationId,
    user: UserId,
    blocked: bool,
) -> Result<After, EngineError> {
    let is_group = matches!(conversation, ConversationId::Group(_));
    let mut head = match staged.head(conversation)? {
        Some(head) => head,
        None if is_group => return Ok((Changed::NotFound, 0, 0)),
        None => staged.new_head(),
    };
    let key = rows::blocked(head.number, Some(user));
    let is_other = is_blocked(staged, &head, user)? != blocked;
    let is_out = is_group && blocked && take_out(staged, conversation, &mut head, user)?;
    if is_other && blocked {
        head.blocked = head.blocked.saturating_add(1);
        staged.put(Space::State, key, &Activity { at: unix_ms() });
    } else if is_other {
        head.blocked = head.blocked.saturating_sub(1);
        staged.remove(Space::State, key);
    }
    let changed = match (is_other, is_out) {
        (_, true) => Changed::Removed,
        (true, false) => Changed::Blocked,
        (false, false) => Changed::Same,
    };
    Ok(after(staged, conversation, changed, head))
}

/// Raises a user's positions; with the `mver` and the number of members of a
/// group. The cursor has no audience yet.
pub(super) fn advance(
    staged: &mut Staged,
    progress: &Progress,
) -> Result<Option<(Cursor, u64, u64)>, EngineError> {
    let is_group = matches!(progress.conversation, ConversationId::Group(_));
    let Some(head) = staged.head(&progress.conversation)? else {
        // What was never written has no positions.
        return Ok((!is_group).then(|| (Cursor::default(), 0, 0)));
    };
    let member = rows::member(head.number, Some(progress.user));
    if is_group && staged.get::<MemberRow>(Space::State, member)?.is_none() {
        return Ok(None);
    }
    let key = rows::cursor(head.number, Some(progress.user));
    let before: CursorRow = staged.get(Space::State, key.clone())?.unwrap_or_default();
    let read = before.read.max(progress.read.min(head.top));
    let delivered = before.delivered.max(progress.delivered.min(head.top)).max(read);
    let now = CursorRow { delivered, read };
    if now != before {
        staged.put(Space::State, key, &now);
    }
    let cursor = Cursor {
        epoch: head.epoch,
        delivered,
        read,
        delivered_grew: delivered > before.delivered,
        read_grew: read > before.read,
        audience: None,
    };
    Ok(Some((cursor, head.mver, head.members)))
}
