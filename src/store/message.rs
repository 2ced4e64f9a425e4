//! Messages on their way into a log and out of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Audience, StoreError};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Direction, Push};

/// One message to append.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    /// Where.
    pub conversation: ConversationId,
    /// Who sends; with `client_msg_id` it names the message.
    pub from: UserId,
    /// The sender's name of the message.
    pub client_msg_id: String,
    /// The id the message gets, unless it is a duplicate.
    pub server_msg_id: String,
    /// Digest of the content: the same id with another one is a conflict.
    pub content_hash: u64,
    /// Unix ms.
    pub server_time: i64,
    /// The message, without its seq and epoch.
    pub push: Push,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is in the log.
    Stored {
        /// Its position.
        seq: i64,
        /// The conversation's history.
        epoch: u64,
    },
    /// It was already.
    Duplicate {
        /// The original's position.
        seq: i64,
        /// The conversation's history.
        epoch: u64,
        /// The original's id.
        server_msg_id: String,
        /// The original's time, unix ms.
        server_time: i64,
    },
    /// The same id was used for other content.
    Conflict,
    /// The sender may not.
    Refused(Refused),
}

/// Why a conversation does not take a message of this sender. The system is
/// never refused by a conversation that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such group, or the sender is not in it.
    NotFound,
    /// The sender is muted until this unix ms.
    Muted(i64),
    /// The sender is on the conversation's blacklist.
    Blocked,
}

/// The outcomes of one call.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// One per message, in order. An error on one conversation leaves the
    /// others.
    pub outcomes: Vec<Result<Appended, StoreError>>,
    /// Of every group something was stored in, or was a duplicate of.
    pub audiences: HashMap<ConversationId, Arc<Audience>>,
}

/// What to read of a conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// The first seq, inclusive; backward from 0 = from the top.
    pub from: i64,
    /// Most messages.
    pub limit: usize,
    /// Most bytes of messages; one message is given even if it is longer.
    pub max_bytes: usize,
    /// Which way.
    pub direction: Direction,
}

impl Span {
    /// How many of messages with these sizes it takes.
    pub(super) fn fitting(&self, sizes: impl Iterator<Item = usize>) -> usize {
        let mut bytes = 0_usize;
        let fits = |size: &usize| {
            bytes = bytes.saturating_add(*size);
            bytes <= self.max_bytes
        };
        let mut sizes = sizes.take(self.limit).peekable();
        let any = sizes.peek().is_some();
        sizes.take_while(fits).count().max(usize::from(any))
    }
}

/// A page of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    /// The conversation's history; 0 = it has none yet.
    pub epoch: u64,
    /// Ascending when forward, descending when backward.
    pub messages: Vec<Push>,
    /// The last seq.
    pub top: i64,
    /// The first seq that is still there; `top + 1` = none is, 0 = there was
    /// never one.
    pub first_available: i64,
    /// Whether the direction holds more.
    pub has_more: bool,
}

/// The end of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Top {
    /// The conversation's history.
    pub epoch: u64,
    /// The last seq; 0 = nothing was sent yet.
    pub seq: i64,
    /// The id of the message there, also after it was trimmed.
    pub server_msg_id: String,
}
