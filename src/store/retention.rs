//! How long messages are kept, and what a step of removing them did.

use crate::types::ConversationId;

/// How long messages of one kind of conversation are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Oldest age, ms; `None` = any.
    pub age_ms: Option<i64>,
    /// Most messages; `None` = any number.
    pub count: Option<i64>,
}

/// How long messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Between two users.
    pub p2p: Keep,
    /// In groups.
    pub group: Keep,
}

impl Retention {
    /// What holds for this conversation.
    #[must_use]
    pub(crate) const fn of(&self, conversation: &ConversationId) -> Keep {
        match conversation {
            ConversationId::P2p(..) => self.p2p,
            ConversationId::Group(_) => self.group,
        }
    }
}

/// What one step of trimming did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Messages removed.
    pub messages: u64,
    /// Conversations looked at.
    pub conversations: u64,
    /// Where the next step goes on; empty = the round is complete.
    pub cursor: String,
}
