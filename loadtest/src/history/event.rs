//! What one client saw, in the order it saw it.

use std::sync::Arc;
use std::time::Duration;

/// One device's own log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientLog {
    /// Its user.
    pub user: i64,
    /// Its device.
    pub device: String,
    /// In the order they happened.
    pub records: Vec<Record>,
}

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Since the run began; one clock for all clients.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// What can happen to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A message left for the first time; repetitions are not told.
    Sent {
        /// Where to.
        conversation: Arc<str>,
        /// Its own id.
        client_msg_id: Arc<str>,
        /// Of the content.
        digest: u64,
    },
    /// The gateway says it is stored.
    Acked {
        /// Where.
        conversation: Arc<str>,
        /// Which.
        client_msg_id: Arc<str>,
        /// The name it got.
        server_msg_id: Arc<str>,
        /// The place it got.
        seq: i64,
        /// In which history.
        epoch: u64,
        /// Whether it had been stored before.
        duplicate: bool,
        /// How durable: 1, 2 or 3.
        level: u32,
    },
    /// The gateway says it is not, in other words than RETRY_LATER.
    Failed {
        /// Where.
        conversation: Arc<str>,
        /// Which.
        client_msg_id: Arc<str>,
        /// Name of the error code.
        code: String,
    },
    /// A message came.
    Received {
        /// Which.
        message: Message,
        /// On which way.
        how: How,
    },
    /// A connection was made, with these positions to resume from.
    Connected {
        /// The gateway's address.
        to: String,
        /// What the client says it has.
        resume: Vec<Position>,
    },
    /// The gateway serves the connection.
    Ready {
        /// The gateway's name.
        gateway: String,
        /// Tops of the user's conversations.
        positions: Vec<Position>,
    },
    /// The connection is gone.
    Disconnected {
        /// In words; `None` = the client left.
        why: Option<String>,
    },
    /// Told RESYNC: what the client has of the conversation is forgotten.
    Resync {
        /// Which.
        conversation: Arc<str>,
        /// What the client had without a hole.
        had: Position,
        /// What is there now.
        current: Option<Position>,
        /// The gateway's words, and on what occasion they came.
        why: String,
    },
    /// Told that what lies before is not kept any more.
    Trimmed {
        /// Of which conversation.
        conversation: Arc<str>,
        /// The first one that is.
        first_available: i64,
    },
    /// Told that the user is a member now.
    Joined {
        /// Of which conversation.
        conversation: Arc<str>,
        /// Sees what has a larger seq.
        since_seq: i64,
    },
    /// Told that he is not any more.
    Removed {
        /// Of which conversation.
        conversation: Arc<str>,
    },
}

impl Event {
    /// Told so, by a client that does not know what it had.
    pub(crate) fn resync(conversation: &Arc<str>) -> Self {
        let conversation = Arc::clone(conversation);
        let had = Position {
            conversation: Arc::clone(&conversation),
            epoch: 0,
            seq: 0,
            server_msg_id: Arc::from(""),
        };
        Self::Resync { conversation, had, current: None, why: String::new() }
    }
}

/// A stored message, as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub conversation: Arc<str>,
    /// Its place.
    pub seq: i64,
    /// In which history.
    pub epoch: u64,
    /// Its name.
    pub server_msg_id: Arc<str>,
    /// The name its sender gave it.
    pub client_msg_id: Arc<str>,
    /// Its sender.
    pub from: i64,
    /// Of the content.
    pub digest: u64,
}

/// On which way a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Pushed as it was stored.
    Live,
    /// Pushed after a resume.
    Replay,
    /// Asked for.
    Pull,
}

/// A place in a conversation, and the message that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Where.
    pub conversation: Arc<str>,
    /// In which history.
    pub epoch: u64,
    /// The place.
    pub seq: i64,
    /// Of the message there; empty where there is none.
    pub server_msg_id: Arc<str>,
}
