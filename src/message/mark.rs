//! The name of one stored message.

use crate::types::{ConversationId, fnv1a64};
use crate::wire::pb::Push;

/// Where a stored message stands, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its history.
    pub epoch: u64,
    /// Its position.
    pub seq: i64,
    /// Its serverMsgId, as a number.
    pub id: i64,
}

impl Mark {
    /// Of a message that came from a log; `None` where its conversation has no
    /// valid name.
    #[must_use]
    pub(crate) fn of(push: &Push) -> Option<Self> {
        let conversation = ConversationId::parse(&push.conversation_id).ok()?;
        Some(Self { conversation, epoch: push.epoch, seq: push.seq, id: message_id(&push.server_msg_id) })
    }
}

/// A serverMsgId as a number: ours are decimal; any other text, as an older
/// log may hold, by its digest. 0 = none.
#[must_use]
pub(crate) fn message_id(text: &str) -> i64 {
    if text.is_empty() {
        return 0;
    }
    text.parse().unwrap_or_else(|_| i64::from_ne_bytes(fnv1a64(text.as_bytes()).to_ne_bytes()))
}
