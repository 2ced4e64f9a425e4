//! Writes down what a client sees.

use std::sync::Arc;

use tidegate::proto::{Position as WirePosition, Push, push};
use tokio::time::Instant;

use crate::history::{ClientLog, Event, Message, Position, Record};

/// One client's pen.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    log: ClientLog,
}

impl Recorder {
    /// The one device each user has in a run.
    pub(super) const DEVICE: &str = "check";

    pub(super) fn new(user: i64, start: Instant) -> Self {
        Self { start, log: ClientLog { user, device: Self::DEVICE.to_owned(), records: Vec::new() } }
    }

    /// It happened just now.
    pub(super) fn note(&mut self, event: Event) {
        self.log.records.push(Record { at: self.start.elapsed(), event });
    }

    pub(super) fn into_log(self) -> ClientLog {
        self.log
    }
}

/// A message as the checker wants it.
pub(super) fn message(conversation: &Arc<str>, push: &Push) -> Message {
    Message {
        conversation: Arc::clone(conversation),
        seq: push.seq,
        epoch: push.epoch,
        server_msg_id: Arc::from(push.server_msg_id.as_str()),
        client_msg_id: Arc::from(push.client_msg_id.as_str()),
        from: push.from_user_id,
        digest: match &push.content {
            Some(push::Content::TextContent(text)) => digest(text),
            _ => 0,
        },
    }
}

/// A position as the checker wants it.
pub(super) fn position(position: &WirePosition) -> Position {
    Position {
        conversation: Arc::from(position.conversation_id.as_str()),
        epoch: position.epoch,
        seq: position.seq,
        server_msg_id: Arc::from(position.server_msg_id.as_str()),
    }
}

/// FNV-1a: tells contents apart that no adversary made.
pub(crate) fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
