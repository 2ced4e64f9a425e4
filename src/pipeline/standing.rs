//! How far one connection is in a conversation that is repaired, and whether
//! what its client has is in the log.

use std::sync::Arc;

use super::Ports;
use super::proof::prove_against;
use crate::hub::Peer;
use crate::message::{Place, Proof, id_check, message_id};
use crate::store::Page;
use crate::types::ConversationId;

/// One connection, as it stood before the log was read.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) peer: Arc<Peer>,
    place: Place,
    /// What else the client has.
    holdings: Vec<Place>,
    /// Up to here nothing is his, and proves anything.
    since: i64,
}

/// What a page says of it.
#[derive(Debug)]
pub(super) enum Judgement {
    /// All that the page reaches is there.
    Valid,
    /// The page ends before its place.
    Unreached,
    /// The client has this, and the log does not.
    Lost(Place, Proof),
}

impl Ports {
    /// Of all connections here whose place is known, and that do not pull.
    pub(super) fn standings(&self, conversation: &ConversationId) -> Vec<Standing> {
        let room = self.hub.rooms.get(conversation);
        let standing = |peer: Arc<Peer>| {
            let (place, holdings) = peer.outbox.standing(conversation)?;
            let since = room.as_ref().and_then(|room| room.since(peer.identity.user)).unwrap_or(0);
            Some(Standing { peer, place, holdings, since })
        };
        self.connections_in(conversation).into_iter().filter_map(standing).collect()
    }
}

impl Standing {
    /// What is to be read for it begins here.
    pub(super) fn from(&self) -> i64 {
        self.proved_holdings().map(|held| held.seq).fold(self.place.seq.max(self.since), i64::min)
    }

    fn proved_holdings(&self) -> impl Iterator<Item = &Place> {
        self.holdings.iter().filter(|held| held.seq > self.since)
    }

    /// Holds it against a page; what is there counts as proved from then on.
    pub(super) fn judge(&self, page: &Page) -> Judgement {
        let here = Some(Proof::Valid);
        let proof = if self.place.seq <= self.since { here } else { prove_against(&self.place, page) };
        if let Some(proof) = proof.filter(|proof| *proof != Proof::Valid) {
            return Judgement::Lost(self.place, proof);
        }
        for held in self.proved_holdings() {
            match prove_against(held, page) {
                Some(Proof::Valid) => self.peer.outbox.proved(held, page.epoch),
                Some(proof) => return Judgement::Lost(*held, proof),
                // The client is told to pull what the page does not reach.
                None => {}
            }
        }
        if proof == here { Judgement::Valid } else { Judgement::Unreached }
    }

    /// Moves it on to the history of a page that it is valid in, behind all
    /// that is none of the user's; returns where it is then.
    pub(super) fn go_on(&self, conversation: &ConversationId, page: &Page) -> Place {
        let seq = self.place.seq.max(self.since);
        let at = page.messages.iter().find(|message| message.seq == seq);
        let known = if seq == self.place.seq { self.place.id } else { 0 };
        let id = if known == 0 { at.map_or(0, |at| id_check(message_id(&at.server_msg_id))) } else { known };
        let to = Place { epoch: page.epoch, seq, id, ..self.place };
        if to != self.place && seq > 0 {
            self.peer.outbox.move_place(conversation, &self.place, &to);
        }
        to
    }
}
