//! Who of a group is online here: users are taken in when they connect or
//! join, and the set is read again when the group has changed.
//!
//! The gateway's interest is registered before tops are read and taken back
//! some time after the last member here has gone, so that nothing is missed in
//! between and nobody publishes to where nobody is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Pipeline, Ports};
use crate::hub::{Frame, Peer};
use crate::message::message_id;
use crate::store::{Joined, StoreError};
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, UserId, monotonic_ms};
use crate::wire::frame_encoded;
use crate::wire::pb::Membership;

/// Most groups of one user that are followed.
pub(super) const MAX_INDEX: usize = 10_000;
/// How often empty rooms are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Users whose groups are read at a time after an outage.
const REJOIN_BATCH: usize = 200;
/// How often a store that does not answer is asked about a change.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(300);

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("rooms", stop, sweep(Arc::clone(ports)));
}

async fn sweep(ports: Arc<Ports>) {
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Nobody registers interest while it is taken back.
        let _alone = ports.interest.write().await;
        let closed = ports.hub.rooms.sweep(monotonic_ms());
        if !closed.is_empty() && ports.store.leave(&ports.own, &closed).await.is_err() {
            // Whoever publishes here is told by silence; it costs a publish.
            tracing::debug!(groups = closed.len(), "interest not taken back");
        }
    }
}

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
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let _shared = self.interest.read().await;
        let wanted: Vec<_> = groups.into_iter().map(|group| (group, user)).collect();
        let joined = self.store.join(&self.own, &wanted).await?;
        let taken_in = wanted.into_iter().zip(joined).filter_map(|((group, _), joined)| {
            let joined = joined?;
            let room = self.hub.rooms.open(&group, monotonic_ms());
            room.enter(user, joined.member.since_seq, joined.mver, joined.members);
            Some((group, joined))
        });
        Ok(taken_in.collect())
    }

    /// Takes a user out of the rooms of a connection that has gone, unless he
    /// has another one here.
    pub(super) fn leave_rooms(&self, peer: &Peer) {
        let user = peer.identity.user;
        for key in peer.outbox.keys() {
            if let Some(room) = self.hub.rooms.by_key(key) {
                room.leave_unless(user, || self.hub.has(user));
            }
        }
    }

    /// Reads a room's members again if what waits for it is newer.
    pub(super) async fn reload_for(&self, conversation: &ConversationId) -> Result<(), StoreError> {
        let Some(room) = self.hub.rooms.get(conversation) else { return Ok(()) };
        if self.hub.gaps.mver(conversation) <= room.mver() {
            return Ok(());
        }
        metrics().room_reloads.increment(1);
        let users: Vec<UserId> = room.members().into_iter().map(|(user, _)| user).collect();
        let roster = self.store.roster(conversation, &users).await?;
        let (mver, size, members) = match roster {
            Some(roster) => (roster.audience.mver, roster.audience.members, roster.members),
            None => (u64::MAX, 0, vec![None; users.len()]),
        };
        let entries: Vec<_> = users
            .into_iter()
            .zip(members)
            .map(|(user, member)| (user, member.map(|m| m.since_seq)))
            .collect();
        room.reload(mver, size, &entries);
        for (user, since) in entries {
            if since.is_none() {
                self.forget_conversation(user, conversation);
            }
        }
        Ok(())
    }

    fn forget_conversation(&self, user: UserId, conversation: &ConversationId) {
        self.hub.peers(user).iter().for_each(|peer| peer.outbox.leave(conversation));
    }

    /// Applies a change of members to what is known here, and tells those
    /// whom it concerns.
    pub(crate) async fn members_changed(&self, membership: &Membership) {
        let Ok(conversation) = ConversationId::parse(&membership.conversation_id) else { return };
        let here = |id: &i64| UserId::new(*id).ok().filter(|user| self.hub.has(*user));
        let affected: Vec<UserId> = membership.user_ids.iter().filter_map(here).collect();
        let frame = Frame::control(frame_encoded(&membership.envelope), FrameKind::Other);
        let room = self.hub.rooms.get(&conversation);
        let mut told: Vec<UserId> = affected.clone();
        if membership.to_members || membership.user_ids.is_empty() {
            told.extend(room.iter().flat_map(|room| room.members()).map(|(user, _)| user));
        }
        if membership.user_ids.is_empty() {
            // The group is gone.
            for user in &told {
                self.forget_conversation(*user, &conversation);
                room.iter().for_each(|room| room.leave(*user));
            }
        } else {
            for user in affected {
                self.look_up_member(&conversation, user).await;
            }
        }
        told.sort_unstable();
        told.dedup();
        if !membership.envelope.is_empty() {
            for user in told {
                self.hub.deliver(user, &frame, None);
            }
        }
    }

    /// Takes a user in or out, as the store says.
    pub(super) async fn look_up_member(&self, conversation: &ConversationId, user: UserId) {
        let mut joined = self.join_rooms(user, vec![conversation.clone()]).await;
        for _ in 1..ATTEMPTS {
            if joined.is_ok() {
                break;
            }
            sleep(RETRY).await;
            joined = self.join_rooms(user, vec![conversation.clone()]).await;
        }
        match joined.map(|mut joined| joined.pop()) {
            Ok(Some((_, joined))) => self.begin(conversation, user, &joined),
            Ok(None) => {
                self.hub.rooms.get(conversation).iter().for_each(|room| room.leave(user));
                self.forget_conversation(user, conversation);
            }
            // The next reconnection of the store finds it.
            Err(error) => {
                tracing::warn!(%conversation, %user, %error, "a change of members is not applied yet")
            }
        }
    }

    /// A user's connections go on where he joined.
    fn begin(&self, conversation: &ConversationId, user: UserId, joined: &Joined) {
        let top = &joined.top;
        let since = joined.member.since_seq;
        for peer in self.hub.peers(user) {
            // With the whole history it is the client's to pull what was.
            let at_top = since == 0 || since >= top.seq;
            let (seq, id) = if at_top { (top.seq, message_id(&top.server_msg_id)) } else { (since, 0) };
            if peer.outbox.enter(conversation, top.epoch, seq, id) && !at_top {
                self.hub.gaps.note(conversation, monotonic_ms(), None);
            }
        }
    }

    /// Registers interest anew for everybody here, at a paced rate: after an
    /// outage nothing is known of what the store holds, nor of who has joined
    /// meanwhile.
    pub(crate) async fn register_interest(&self) {
        let mut users: Vec<UserId> = self.hub.all().iter().map(|peer| peer.identity.user).collect();
        users.sort_unstable();
        users.dedup();
        for chunk in users.chunks(REJOIN_BATCH) {
            for user in chunk {
                while let Err(error) = self.rejoin(*user).await {
                    tracing::debug!(%error, "groups are not read yet");
                    sleep(RETRY).await;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Registers interest in all groups of a user.
    pub(super) async fn rejoin(&self, user: UserId) -> Result<(), StoreError> {
        let index = self.store.index(&[user], 0, 0, MAX_INDEX).await?.pop().unwrap_or_default();
        let groups = index.into_iter().filter(ConversationId::is_group).collect();
        for (group, joined) in self.join_rooms(user, groups).await? {
            self.begin(&group, user, &joined);
        }
        Ok(())
    }

    /// The groups with a member online here.
    pub(crate) fn groups_here(&self) -> Vec<ConversationId> {
        self.hub
            .rooms
            .all()
            .iter()
            .filter(|room| room.online() > 0)
            .map(|room| room.conversation.clone())
            .collect()
    }
}
