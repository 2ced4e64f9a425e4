//! Stored messages on their way to connections here: each connection gets
//! each message once and in order, and a message that comes too early waits
//! for the ones before it.

use std::sync::Arc;

use super::Ports;
use crate::hub::{Frame, Held, Offered, PATIENCE_MS, Peer, Start};
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
        let mut offer = |user: &UserId| {
            let devices = self.hub.devices(*user);
            devices.map_or(0, |devices| early.offer(devices.as_slice(), frame, except))
        };
        let taken = users.iter().map(&mut offer).collect();
        self.wait_behind(&early, frame, except, 0);
        taken
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
            let held = Held { frame: frame.clone(), except: except.cloned(), mver };
            self.wait(&mark.conversation, held, early.other_history);
        }
        self.go_on(&mark.conversation);
    }

    /// A message waits for the ones before it, or for a proof.
    pub(super) fn wait(&self, conversation: &ConversationId, held: Held, other_history: bool) {
        let patience = if other_history { 0 } else { PATIENCE_MS };
        self.hub.gaps.note(conversation, monotonic_ms() + patience, Some(held));
    }

    /// What a message waits for may have come meanwhile, or it is what others
    /// wait for.
    pub(super) fn go_on(&self, conversation: &ConversationId) {
        if self.hub.gaps.any() {
            self.release(conversation);
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
                Offered::Gone | Offered::Stale | Offered::Pulling | Offered::Unlisted => {}
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
