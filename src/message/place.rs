//! How far one connection is in one conversation, and what a message is to it.
//! Pure.

use super::Mark;
use crate::types::ConversationId;

/// The last message of one conversation that a connection was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// [`ConversationId::key`].
    pub key: u64,
    /// Of which history.
    pub epoch: u64,
    /// Its position; 0 = nothing yet.
    pub seq: i64,
    /// Which message that is, as [`id_check`] has it; 0 = not known.
    pub id: u32,
}

/// Bits of an id that a place keeps.
const ID_BITS: u32 = 26;

/// What a place keeps of the id of its message: as many bits as tell one
/// message from another at the same position of the same conversation. 0 = the
/// id is not known.
///
/// Positions of one history have one message each, so it decides only after
/// a loss: whether the message that a client has stands in the log still. Of
/// two different ones it takes one for the other once in 67 million; the
/// client then has the lost message in the other one's place, until it names
/// its position itself, by resuming or pulling with the whole id, which is
/// compared whole.
#[must_use]
pub(crate) const fn id_check(id: i64) -> u32 {
    if id == 0 {
        return 0;
    }
    // The finalizer of MurmurHash3: close ids differ everywhere.
    let mut mixed = u64::from_ne_bytes(id.to_ne_bytes());
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 33;
    let [a, b, c, d, ..] = mixed.to_le_bytes();
    let check = u32::from_le_bytes([a, b, c, d]) >> (32 - ID_BITS);
    if check == 0 { 1 } else { check }
}

impl Place {
    /// Behind this message.
    #[must_use]
    pub(crate) fn behind(mark: &Mark) -> Self {
        Self::new(&mark.conversation, mark.epoch, mark.seq, mark.id)
    }

    /// The same in parts.
    #[must_use]
    pub(crate) fn new(conversation: &ConversationId, epoch: u64, seq: i64, id: i64) -> Self {
        Self { key: conversation.key(), epoch, seq, id: id_check(id) }
    }

    /// Whether it is at this message of its history, or came after it.
    pub(super) const fn is_behind(&self, message: &Self) -> bool {
        self.epoch == message.epoch && self.seq >= message.seq
    }

    /// Where a message stands to one that is here.
    pub(super) fn judge(&self, mark: &Mark) -> Verdict {
        match self {
            Self { seq: 0, .. } if mark.seq == 1 => Verdict::Next,
            Self { seq: 0, .. } => Verdict::Hole,
            place if mark.epoch > place.epoch => Verdict::OtherHistory,
            place if mark.epoch < place.epoch || mark.seq <= place.seq => Verdict::Stale,
            place if mark.seq == place.seq + 1 => Verdict::Next,
            _ => Verdict::Hole,
        }
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Of a group that the client was never told of, where it was told of all.
    Unlisted,
    /// Hand it over.
    Next,
    /// It was handed over before.
    Stale,
    /// The ones before it come first.
    Hole,
    /// It is of another history: what the connection has is to be proved.
    OtherHistory,
    /// The client pulls it.
    Pulling,
}
