//! What a change of members does here: those it is for are told.

use super::Ports;
use super::membership::event_frame;
use crate::types::{ConversationId, UserId};
use crate::wire::pb::Membership;

/// Members read at a time.
const PAGE: usize = 1_000;

impl Ports {
    /// Tells the connections here.
    pub(crate) async fn members_changed(&self, membership: &Membership) {
        let mut users: Vec<UserId> =
            membership.user_ids.iter().filter_map(|&id| UserId::new(id).ok()).collect();
        if membership.to_members {
            users.extend(self.members_here(&membership.conversation_id).await);
            users.sort_unstable();
            users.dedup();
        }
        for user in users.into_iter().filter(|user| self.hub.has(*user)) {
            self.hub.deliver(user, &event_frame(membership, user), None);
        }
    }

    async fn members_here(&self, group: &str) -> Vec<UserId> {
        let Ok(group) = ConversationId::parse(group) else { return Vec::new() };
        let mut here = Vec::new();
        let mut after = None;
        while let Ok(Some(page)) = self.store.members(&group, after, PAGE).await {
            after = page.members.last().map(|(user, _)| *user);
            here.extend(page.members.into_iter().map(|(user, _)| user).filter(|user| self.hub.has(*user)));
            if !page.has_more {
                break;
            }
        }
        here
    }
}
