//! Whether what a client has is of the history that is here.

use crate::message::{Place, Proof, message_id, prove};
use crate::store::{Page, Store, StoreError};
use crate::telemetry::{ResyncCause, metrics};
use crate::types::ConversationId;
use crate::wire::error;
use crate::wire::pb::{Error, ErrorCode, Position, Push};

/// Proves a place against a forward page that begins at it or before; `None`
/// = the page does not reach it.
pub(super) fn prove_against(place: &Place, page: &Page) -> Option<Proof> {
    #[cfg(feature = "planted-bugs")]
    if crate::planted::has(crate::planted::Bug::ResumeWithoutEpoch) {
        return Some(Proof::Valid);
    }
    let at = page.messages.iter().find(|message| message.seq == place.seq);
    let reached = page.messages.last().is_none_or(|last| last.seq >= place.seq) || !page.has_more;
    if at.is_none() && !reached && place.seq <= page.top {
        return None;
    }
    let at = at.map(|message| message_id(&message.server_msg_id));
    // Still there, but not of this page: it is older than what was read.
    Some(prove(place, page.epoch, page.top, at))
}

/// The same of a position that a client names, by the whole id: a place keeps
/// less of it.
pub(super) fn prove_named(place: &Place, id: i64, page: &Page) -> Option<Proof> {
    let other = |push: &Push| push.seq == place.seq && id != 0 && message_id(&push.server_msg_id) != id;
    let proof = prove_against(place, page)?;
    let refuted = proof == Proof::Valid && place.seq > 0 && page.messages.iter().any(other);
    #[cfg(feature = "planted-bugs")]
    let refuted = refuted && !crate::planted::has(crate::planted::Bug::ResumeWithoutEpoch);
    Some(if refuted { Proof::OtherMessage } else { proof })
}

/// Why a place is not of the history of such a page; `None` = it is, as far as
/// the page tells.
pub(super) fn refuted(place: &Place, page: &Page) -> Option<Proof> {
    prove_against(place, page).filter(|proof| *proof != Proof::Valid)
}

/// A position as places are kept.
pub(super) fn place_at(conversation: &ConversationId, position: &Position) -> Place {
    Place::new(conversation, position.epoch, position.seq, message_id(&position.server_msg_id))
}

/// Where a conversation stands now.
pub(super) async fn current(store: &Store, conversation: &ConversationId) -> Result<Position, StoreError> {
    let top = store.tops(std::slice::from_ref(conversation)).await?.pop().flatten().unwrap_or_default();
    Ok(Position {
        conversation_id: conversation.text(),
        epoch: top.epoch,
        seq: top.seq,
        server_msg_id: top.server_msg_id,
        ..Position::default()
    })
}

/// What a client is told whose place is not proved; counted.
pub(super) fn resync_required(proof: Proof, current: Position) -> Error {
    let (cause, message) = match proof {
        Proof::Beyond => (ResyncCause::Beyond, "the conversation ends before this position"),
        Proof::Unknown => (ResyncCause::Trimmed, "this position is trimmed, and of another epoch"),
        Proof::OtherMessage | Proof::Valid => {
            (ResyncCause::OtherMessage, "another message stands at this position")
        }
    };
    metrics().count_resync(cause);
    Error {
        conversation_id: current.conversation_id.clone(),
        current: Some(current),
        ..error(ErrorCode::ResyncRequired, message)
    }
}
