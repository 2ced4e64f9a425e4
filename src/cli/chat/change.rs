//! What happens to a group and its members, in words.

use tokio::time::Instant;

use super::talk::Talk;
use crate::wire::pb::{ConversationChange, ConversationEvent};

impl Talk {
    /// Tells of a change; whoever joins is shown what there is.
    pub(super) fn on_change(&mut self, event: &ConversationEvent, now: Instant) {
        let about_me = event.user_id == self.parties.me.get();
        if let Some(words) = words(event, about_me) {
            self.notice(words);
        }
        match event.change() {
            ConversationChange::Joined if about_me => self.look(now),
            ConversationChange::Removed if about_me => self.end_pull(),
            ConversationChange::Deleted => self.end_pull(),
            _ => {}
        }
    }
}

fn words(event: &ConversationEvent, about_me: bool) -> Option<String> {
    let ConversationEvent { conversation_id: group, role, user_id, .. } = event;
    let who = if about_me { "you".to_owned() } else { format!("user {user_id}") };
    let has = if about_me { "have" } else { "has" };
    Some(match event.change() {
        ConversationChange::Joined => format!("{who} joined {group}, role {role}"),
        ConversationChange::Removed => format!("{who} left {group}"),
        ConversationChange::Role => format!("{who} {has} role {role} in {group}"),
        ConversationChange::Muted if event.mute_until == 0 => format!("{who} may write in {group} again"),
        ConversationChange::Muted => format!("{who} may not write in {group} for now"),
        ConversationChange::Deleted => format!("{group} is gone"),
        ConversationChange::Unspecified => return None,
    })
}
