//! Who of a group is online here: users are taken in when they connect or
//! join, and the set is read again when the group has changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::membership::{event_frame, found_out_frame};
use super::{Pipeline, Ports};
use crate::hub::{Peer, Room, Turn};
use crate::message::message_id;
use crate::store::{Audience, Joined, StoreError};
use crate::telemetry::{HintCause, metrics};
use crate::types::{ConversationId, UserId, monotonic_ms};
use crate::wire::pb::{ConversationChange, Membership};

/// Memberships looked up in one round trip.
pub(super) const JOIN_BATCH: usize = 1_000;
/// How often a store that does not answer is asked about a change.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(300);

impl Pipeline {
    /// Whether a user with a connection here is in a conversation, as far as
    /// is known here.
    #[must_use]
    pub(crate) fn is_member(&self, user: UserId, conversation: &ConversationId) -> bool {
        match conversation {
            ConversationId::P2p(..) => conversation.peer_of(user).is_some(),
            ConversationId::Group(_) => self.ports.is_in_room(user, conversation),
        }
    }
}

impl Ports {
    /// Whether a user was taken into a group's room.
    pub(super) fn is_in_room(&self, user: UserId, group: &ConversationId) -> bool {
        self.hub.rooms.get(group).is_some_and(|room| room.since(user).is_some())
    }

    /// Registers interest in these groups on behalf of a user with a
    /// connection here, and takes him in; returns where each ends.
    pub(super) async fn join_rooms(
        &self,
        user: UserId,
        groups: Vec<ConversationId>,
    ) -> Result<Vec<(ConversationId, Joined)>, StoreError> {
        let wanted: Vec<_> = groups.into_iter().map(|group| (group, user)).collect();
        let joined = self.take_in(&wanted).await?;
        Ok(wanted.into_iter().zip(joined).filter_map(|((group, _), joined)| Some((group, joined?))).collect())
    }

    /// Registers interest, then takes those in who are members.
    pub(super) async fn take_in(
        &self,
        wanted: &[(ConversationId, UserId)],
    ) -> Result<Vec<Option<Joined>>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let _shared = self.interest.read().await;
        // There before the tops are read, so that they hear what comes then.
        let now_ms = monotonic_ms();
        let rooms: Vec<_> = wanted.iter().map(|(group, _)| self.hub.rooms.open(group, now_ms)).collect();
        let joined = self.store.join(&self.own, wanted).await?;
        for ((room, (_, user)), joined) in rooms.iter().zip(wanted).zip(&joined) {
            if let Some(joined) = joined {
                self.begin(room, *user, joined);
            }
        }
        Ok(joined)
    }

    /// Takes a user out of the rooms of a connection that has gone, unless he
    /// has another one here.
    pub(super) fn leave_rooms(&self, peer: &Peer) {
        let user = peer.identity.user;
        for key in peer.outbox.keys() {
            for room in self.hub.rooms.by_key(key) {
                room.leave_unless(user, || self.hub.has(user));
            }
        }
    }

    /// Reads a room's members again if what waits for it is newer.
    pub(super) async fn reload_for(&self, conversation: &ConversationId) -> Result<(), StoreError> {
        let outdated = |room: Arc<Room>| self.hub.gaps.mver(conversation) > room.mver();
        if self.hub.rooms.get(conversation).is_some_and(outdated) {
            metrics().room_reloads.increment(1);
            self.reload(conversation).await?;
        }
        Ok(())
    }

    /// Reads a room's members again if the store knows of a change that is not
    /// known here, or of no interest in it.
    pub(super) async fn check_members(&self, group: &ConversationId) -> Result<(), StoreError> {
        let Some(room) = self.hub.rooms.get(group) else { return Ok(()) };
        let roster = self.store.roster(group, &[]).await?;
        let changed =
            |audience: &Audience| audience.mver > room.mver() || self.lacks_interest(&room, audience);
        if roster.is_none_or(|roster| changed(&roster.audience)) {
            metrics().room_reloads.increment(1);
            self.reload(group).await?;
        }
        Ok(())
    }

    /// Whether members are here, and the store knows of no interest in them.
    pub(super) fn lacks_interest(&self, room: &Room, audience: &Audience) -> bool {
        !audience.gateways.contains(&self.own) && room.online() > 0
    }

    /// Reads a room's members again; whoever is none any more is out, and told:
    /// nobody has told him. Interest that was lost is registered again.
    pub(super) async fn reload(&self, conversation: &ConversationId) -> Result<(), StoreError> {
        let Some(room) = self.hub.rooms.get(conversation) else { return Ok(()) };
        let turns = room.turns();
        let users: Vec<UserId> = turns.iter().map(|(user, _)| *user).collect();
        let (out, change, lost) = match self.store.roster(conversation, &users).await? {
            Some(roster) => {
                let since = roster.members.iter().map(|member| member.map(|member| member.since_seq));
                let entries = turns.into_iter().zip(since);
                let entries: Vec<_> = entries.map(|((user, turn), since)| (user, turn, since)).collect();
                let out = room.reload(roster.audience.mver, &entries);
                out.iter().for_each(|user| self.forget_conversation(*user, conversation));
                (out, ConversationChange::Removed, self.lacks_interest(&room, &roster.audience))
            }
            // Whoever has come meanwhile is in another group of this name.
            None => (self.vacate(&room, turns), ConversationChange::Deleted, false),
        };
        self.doubt_watches(&out);
        for user in out {
            self.hub.deliver(user, &found_out_frame(conversation, change, user), None);
        }
        if lost { self.take_in_again(&room).await } else { Ok(()) }
    }

    /// Registers interest for everybody in a room, and makes up for what came
    /// while there was none.
    async fn take_in_again(&self, room: &Room) -> Result<(), StoreError> {
        let wanted: Vec<_> =
            room.members().iter().map(|(user, _)| (room.conversation.clone(), *user)).collect();
        for wanted in wanted.chunks(JOIN_BATCH) {
            self.take_in(wanted).await?;
        }
        tracing::info!(group = %room.conversation, "interest was lost, and is registered again");
        self.catch_up_with(std::slice::from_ref(&room.conversation)).await;
        Ok(())
    }

    /// The group of a room is gone: whoever was taken in by then is out.
    /// Returns who.
    fn vacate(&self, room: &Room, turns: Vec<(UserId, Turn)>) -> Vec<UserId> {
        room.forget_tail();
        let left = turns.into_iter().filter(|(user, turn)| room.leave_at(*user, *turn));
        let left: Vec<UserId> = left.map(|(user, _)| user).collect();
        for peer in left.iter().flat_map(|user| self.hub.peers(*user)) {
            // What it has of this one is told to be another's then.
            peer.outbox.suspend(&room.conversation);
        }
        left
    }

    fn forget_conversation(&self, user: UserId, conversation: &ConversationId) {
        self.hub.peers(user).iter().for_each(|peer| peer.outbox.leave(conversation));
    }

    /// Applies a change of members to what is known here, and tells those
    /// whom it concerns.
    pub(crate) async fn members_changed(&self, membership: &Membership) {
        let Ok(conversation) = ConversationId::parse(&membership.conversation_id) else { return };
        // Also who has left and is still in the room.
        let is_known = |user: &UserId| self.hub.has(*user) || self.is_in_room(*user, &conversation);
        let about: Vec<UserId> = membership.user_ids.iter().filter_map(|id| UserId::new(*id).ok()).collect();
        let affected: Vec<UserId> = about.iter().copied().filter(is_known).collect();
        let room = self.hub.rooms.get(&conversation);
        let mut told: Vec<UserId> = affected.clone();
        if membership.to_members || membership.user_ids.is_empty() {
            told.extend(room.iter().flat_map(|room| room.members()).map(|(user, _)| user));
        }
        told.sort_unstable();
        told.dedup();
        if membership.user_ids.is_empty() {
            let left = room.as_ref().map(|room| self.vacate(room, room.turns())).unwrap_or_default();
            self.doubt_watches(&left);
            // There may be another of its name by now.
            self.look_up_members(&conversation, &left).await;
        } else if conversation.is_group()
            && self.look_up_members(&conversation, &affected).await
            && let Some(room) = &room
        {
            // Also who came in since they were looked up.
            room.advance(membership.mver, &about);
        }
        self.doubt_watches(&about);
        for user in told {
            self.hub.deliver(user, &event_frame(membership, user), None);
        }
    }

    /// Takes users in or out, as the store says; returns whether it did.
    pub(super) async fn look_up_members(&self, group: &ConversationId, users: &[UserId]) -> bool {
        let wanted: Vec<_> = users.iter().map(|user| (group.clone(), *user)).collect();
        for _ in 0..ATTEMPTS {
            let room = self.hub.rooms.get(group);
            let turn = |user: &UserId| room.as_ref().and_then(|room| room.turn(*user));
            let turns: Vec<Option<Turn>> = users.iter().map(turn).collect();
            match self.take_in(&wanted).await {
                Ok(joined) => {
                    for ((user, turn), joined) in users.iter().zip(turns).zip(joined) {
                        match (joined, &room, turn) {
                            // He may have come back since that was read.
                            (None, Some(room), Some(turn)) if room.leave_at(*user, turn) => {
                                self.forget_conversation(*user, group);
                            }
                            _ => {}
                        }
                    }
                    self.catch_up_with(std::slice::from_ref(group)).await;
                    return true;
                }
                Err(_) => sleep(RETRY).await,
            }
        }
        // The next reconnection of the store finds it.
        tracing::warn!(%group, "a change of members is not applied yet");
        false
    }

    /// A user's connections go on where he joined.
    fn begin(&self, room: &Room, user: UserId, joined: &Joined) {
        let (conversation, top) = (&room.conversation, &joined.top);
        let since = joined.member.since_seq;
        let missed = since < top.seq;
        let (seq, id) = if missed { (since, 0) } else { (top.seq, message_id(&top.server_msg_id)) };
        // Before anything is delivered to him, so that what was not shows.
        let is_new = |peer: &Arc<Peer>| peer.outbox.enter(conversation, top.epoch, seq, id);
        let new: Vec<Arc<Peer>> = self.hub.peers(user).into_iter().filter(is_new).collect();
        let was_out = room.enter(user, since, joined.mver);
        for peer in new.iter().filter(|_| missed) {
            if since == 0 {
                // The whole history may be long: the client comes for it.
                peer.hint(conversation, top.epoch, top.seq, 0, HintCause::Gap);
            } else {
                self.hub.gaps.note(conversation, monotonic_ms(), None);
            }
        }
        let latest = room.latest();
        if was_out && latest > (top.epoch, top.seq) && latest.1 > since {
            self.make_up(conversation, user, latest);
        }
        // He may have left meanwhile, when nobody knew that he was in.
        room.leave_unless(user, || self.hub.has(user));
    }

    /// What came between the read of the top and a user's taking in was
    /// delivered to the others only.
    fn make_up(&self, conversation: &ConversationId, user: UserId, latest: (u64, i64)) {
        for peer in self.hub.peers(user) {
            match peer.outbox.place(conversation) {
                Some(place) if (place.epoch, place.seq) >= latest => {}
                Some(_) => self.hub.gaps.note(conversation, monotonic_ms(), None),
                // It pulls; or it is not open yet, and may be told more.
                None => peer.hint(conversation, latest.0, latest.1, 0, HintCause::Gap),
            }
        }
    }

    /// Reads where these groups end, and makes up for what was stored before
    /// somebody was taken in and not delivered to him.
    pub(super) async fn catch_up_with(&self, groups: &[ConversationId]) {
        for groups in groups.chunks(JOIN_BATCH) {
            let Ok(tops) = self.store.tops(groups).await else {
                groups.iter().for_each(|group| self.hub.gaps.note(group, monotonic_ms(), None));
                continue;
            };
            for (group, top) in groups.iter().zip(tops) {
                top.iter().for_each(|top| self.catch_up(group, top));
            }
        }
    }
}

#[cfg(test)]
mod tests;
