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
    /// Which message that is; 0 = not known.
    pub id: i64,
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
        Self { key: conversation.key(), epoch, seq, id }
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
