//! Stored messages on their way to connections here: each connection gets
//! each message once and in order, and a message that comes too early waits
//! for the ones before it.

use std::sync::Arc;

use super::Ports;
use crate::hub::{Frame, Held, Offered, PATIENCE_MS, Peer, Room, Start};
use crate::message::Place;
use crate::telemetry::HintCause;
use crate::types::{ConversationId, UserId, monotonic_ms};

impl Ports {
    /// The connections here of users who are in a conversation.
    pub(super) fn connections_in(&self, conversation: &ConversationId) -> Vec<Arc<Peer>> {
        match conversation {
            ConversationId::P2p(lo, hi) => {
                let mut peers = self.hub.peers(*lo);
                peers.extend(self.hub.peers(*hi));
                peers
            }
            ConversationId::Group(_) => {
                let room = self.hub.rooms.get(conversation);
                let members = room.map(|room| room.members()).unwrap_or_default();
                members.into_iter().flat_map(|(user, _)| self.hub.peers(user)).collect()
            }
        }
    }

    /// Of these, those that may see a message that was stored at `mver`; `None`
    /// = who that is has to be read first.
    fn connections_for(&self, frame: &Frame, mver: u64) -> Option<Vec<Arc<Peer>>> {
        let Some(mark) = &frame.mark else { return Some(Vec::new()) };
        if !mark.conversation.is_group() {
            return Some(self.connections_in(&mark.conversation));
        }
        let Some(room) = self.hub.rooms.get(&mark.conversation) else { return Some(Vec::new()) };
        let members = room.members_at(mver)?.into_iter().filter(|(_, since)| *since < mark.seq);
        Some(members.flat_map(|(user, _)| self.hub.peers(user)).collect())
    }

    /// Begins to hand over: `front` first, and then what comes behind `start`.
    pub(crate) fn open(&self, peer: &Peer, front: Vec<Frame>, start: Start) {
        for mark in peer.outbox.open(front, start, peer.limits()) {
            self.hub.gaps.note(&mark.conversation, monotonic_ms(), None);
        }
    }

    /// Hands a copy to all connections of some users; returns per user to how
    /// many. Never waits.
    pub(super) fn offer_to_users(
        &self,
        users: &[UserId],
        frame: &Frame,
        except: Option<&Arc<Peer>>,
    ) -> Vec<u64> {
        let mut early = Early::default();
        let taken = users.iter().map(|user| early.offer(&self.hub.peers(*user), frame, except)).collect();
        self.wait_behind(&early, frame, except, 0);
        taken
    }

    /// The same for the members of a group here. `mver` is of the group when
    /// the message was stored: if the room is older than that it is read again
    /// first, so that nobody gets what he may not see.
    pub(super) fn offer_to_room(
        &self,
        room: &Room,
        frame: &Frame,
        except: Option<&Arc<Peer>>,
        mver: u64,
    ) -> u64 {
        let Some(mark) = &frame.mark else { return 0 };
        // Before it is seen who is in: whoever comes later asks for it.
        room.hear(mark);
        let now_ms = monotonic_ms();
        let Some(members) = room.members_at(mver) else {
            let held = Held { frame: frame.clone(), except: except.cloned(), mver };
            self.hub.gaps.note(&mark.conversation, now_ms, Some(held));
            return 0;
        };
        let rate = room.count(now_ms);
        let hot = rate > self.groups.push_rate || members.len() > self.groups.push_members;
        if hot {
            return self.hint_room(room, &members, frame, except, now_ms);
        }
        room.keep_on(mark, &frame.bytes, now_ms);
        let mut early = Early::default();
        let mut taken = 0;
        for (user, _) in members.iter().filter(|(_, since)| *since < mark.seq) {
            match self.hub.devices(*user) {
                Some(devices) => taken += early.offer(devices.as_slice(), frame, except),
                // He left while he was taken in.
                None => room.leave_unless(*user, || self.hub.has(*user)),
            }
        }
        self.wait_behind(&early, frame, except, mver);
        taken
    }

    /// Tells the members of a busy group to come for the message, each after a
    /// delay of its own, and keeps it for them.
    fn hint_room(
        &self,
        room: &Room,
        members: &[(UserId, i64)],
        frame: &Frame,
        except: Option<&Arc<Peer>>,
        now_ms: u64,
    ) -> u64 {
        let Some(mark) = &frame.mark else { return 0 };
        room.keep(mark, &frame.bytes, now_ms);
        let spread = u32::try_from(self.groups.pull_spread.as_millis()).unwrap_or(u32::MAX);
        let mut told = 0;
        // Who was quick has come for it already.
        let came = |place: Place| (place.epoch, place.seq) >= (mark.epoch, mark.seq);
        for (user, _) in members.iter().filter(|(_, since)| *since < mark.seq) {
            for peer in self.hub.peers(*user) {
                let own = except.is_some_and(|other| Arc::ptr_eq(other, &peer));
                let has = |offered| matches!(offered, Offered::Taken | Offered::Stale);
                let known = peer.outbox.place(&mark.conversation).is_some_and(came);
                if known || own && has(peer.offer(frame, true)) {
                    continue;
                }
                let delay = if spread == 0 { 0 } else { fastrand::u32(0..spread) };
                peer.hint(&mark.conversation, mark.epoch, mark.seq, delay, HintCause::Hot);
                told += 1;
            }
        }
        told
    }

    /// Offers again what waits behind a hole, if there is one; returns whether
    /// nothing waits any more.
    pub(super) fn release(&self, conversation: &ConversationId) -> bool {
        if !self.hub.gaps.any() {
            return true;
        }
        let held = self.hub.gaps.held(conversation);
        if held.is_empty() || !self.offer_held(conversation, &held, None) {
            return false;
        }
        // Whatever was added meanwhile is offered, too.
        let rest = self.hub.gaps.close(conversation);
        if rest.len() != held.len() {
            self.offer_late(conversation, rest);
        }
        true
    }

    /// Offers messages that came while others were offered; one that is too
    /// early waits anew.
    pub(super) fn offer_late(&self, conversation: &ConversationId, late: Vec<Held>) {
        for late in late {
            let Some(peers) = self.connections_for(&late.frame, late.mver) else {
                self.hub.gaps.note(conversation, monotonic_ms(), Some(late));
                continue;
            };
            let mut early = Early::default();
            early.offer(&peers, &late.frame, late.except.as_ref());
            self.wait_behind(&early, &late.frame, late.except.as_ref(), late.mver);
        }
    }

    /// Offers messages in order; returns whether all were, and none came too
    /// early. With a top, whoever has a hole still is told to pull.
    pub(super) fn offer_held(
        &self,
        conversation: &ConversationId,
        held: &[Held],
        top: Option<(u64, i64)>,
    ) -> bool {
        let mut whole = true;
        for held in held {
            let Some(peers) = self.connections_for(&held.frame, held.mver) else {
                if top.is_some() {
                    // It waits no longer: whoever may see it gets it from the log.
                    self.hub.gaps.note(conversation, monotonic_ms(), None);
                }
                return false;
            };
            let mut early = Early::default();
            early.offer(&peers, &held.frame, held.except.as_ref());
            whole &= !early.is_any();
            if let (Some((epoch, top)), Some(mark)) = (top, &held.frame.mark) {
                for peer in early.peers {
                    peer.hint(conversation, epoch.max(mark.epoch), top.max(mark.seq), 0, HintCause::Gap);
                }
            }
        }
        whole
    }

    fn wait_behind(&self, early: &Early, frame: &Frame, except: Option<&Arc<Peer>>, mver: u64) {
        let Some(mark) = &frame.mark else { return };
        if early.is_any() {
            let patience = if early.other_history { 0 } else { PATIENCE_MS };
            let held = Held { frame: frame.clone(), except: except.cloned(), mver };
            self.hub.gaps.note(&mark.conversation, monotonic_ms() + patience, Some(held));
        }
        if self.hub.gaps.any() {
            // What it waits for may have come meanwhile, or it is what others
            // wait for.
            self.release(&mark.conversation);
        }
    }
}

/// Connections that cannot take a copy yet.
#[derive(Default)]
struct Early {
    peers: Vec<Arc<Peer>>,
    other_history: bool,
}

impl Early {
    const fn is_any(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Offers to all of them; returns how many took it.
    fn offer(&mut self, peers: &[Arc<Peer>], frame: &Frame, except: Option<&Arc<Peer>>) -> u64 {
        let mut taken = 0;
        for peer in peers {
            let own = except.is_some_and(|other| Arc::ptr_eq(other, peer));
            match peer.offer(frame, own) {
                Offered::Taken => taken += u64::from(!own),
                Offered::Hole => self.peers.push(Arc::clone(peer)),
                Offered::OtherHistory => {
                    self.other_history = true;
                    self.peers.push(Arc::clone(peer));
                }
                Offered::Gone | Offered::Stale | Offered::Pulling => {}
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
