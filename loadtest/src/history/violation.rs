//! What can be wrong with a run, precisely.

use std::sync::Arc;

/// One breach of the promise. `client` is `user/device`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// I1: acknowledged, and not in the final log of a store that may not lose.
    #[error("I1 lost: {id} was acknowledged to {client} as {conversation} {seq} and is not in the log")]
    Lost {
        /// Who was told that it is stored.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I1: pushed, and not in the final log of a store that may not lose.
    #[error("I1 never stored: {client} was pushed {id} as {conversation} {seq}, which is not in the log")]
    NeverStored {
        /// Who got it.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I1: known to a client, gone, and the client was not told RESYNC.
    #[error(
        "I1 silent loss: {client} knows {conversation} {seq} as {id}, it is gone, and no RESYNC followed"
    )]
    Silent {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I1: acknowledged, in the log, and a member does not have it.
    #[error("I1 missing: {client} does not have {conversation} {seq} ({id}), which was acknowledged")]
    Missing {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// A client that was connected throughout got it late or never.
    #[error("late: {client} was connected and did not get {conversation} {seq} ({id}) in time")]
    Late {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I2: a hole in what a client has.
    #[error("I2 hole: {client} has later ones and not {conversation} {seq}")]
    Hole {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
    },
    /// I2: a hole in the log itself.
    #[error("I2 log hole: {conversation} has no {seq}")]
    LogHole {
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
    },
    /// I2: pushed behind a later one on the same connection.
    #[error("I2 order: {client} was pushed {conversation} {seq} behind {after}")]
    Order {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// The later one.
        after: i64,
    },
    /// I2: one place, two messages.
    #[error("I2 two messages: {conversation} {seq} of epoch {epoch} is {one} and {other}")]
    TwoMessages {
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// In which history.
        epoch: u64,
        /// One name.
        one: Arc<str>,
        /// Another.
        other: Arc<str>,
    },
    /// I2: stored in another order than sent.
    #[error("I2 sender order: {client} sent {id} later than what stands behind it in {conversation}")]
    SenderOrder {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// The sender's name of the message.
        id: Arc<str>,
    },
    /// I3: stored more than once.
    #[error("I3 twice: {id} of {from} is in {conversation} at {first} and {second}")]
    Twice {
        /// Where.
        conversation: Arc<str>,
        /// Whose.
        from: i64,
        /// The sender's name of the message.
        id: Arc<str>,
        /// Once.
        first: i64,
        /// Again.
        second: i64,
    },
    /// I3: told with another place or sender's name than the log has.
    #[error("I3 moved: {client} was told {conversation} {seq} for {id}, the log says otherwise")]
    Moved {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I3: other content than was sent, or never sent at all.
    #[error("I3 content: {conversation} {seq} ({id}) is not what its sender sent")]
    Content {
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
        /// Its name.
        id: Arc<str>,
    },
    /// I3: refused for good, and in the log.
    #[error("I3 refused yet stored: {id} of {client} in {conversation}")]
    RefusedYetStored {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// The sender's name of the message.
        id: Arc<str>,
    },
    /// I4: received, and not his to see.
    #[error("I4 forbidden: {client} got {conversation} {seq} and may not see it")]
    Forbidden {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Where in it.
        seq: i64,
    },
    /// Told to forget, though all it had is in the log.
    #[error(
        "needless resync: all that {client} had of {conversation}, up to {seq} ({id}) of epoch {epoch}, is still there; told: {why}"
    )]
    NeedlessResync {
        /// Who.
        client: String,
        /// Where.
        conversation: Arc<str>,
        /// Up to where it had everything …
        seq: i64,
        /// … and the name of that message; empty where it knows none.
        id: Arc<str>,
        /// In which history.
        epoch: u64,
        /// What it was told.
        why: String,
    },
}

impl Violation {
    /// Its kind in a word or two.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::NeverStored { .. } => "never stored",
            Self::Silent { .. } => "silent loss",
            Self::Missing { .. } => "missing",
            Self::Late { .. } => "late",
            Self::Hole { .. } => "hole",
            Self::LogHole { .. } => "log hole",
            Self::Order { .. } => "order",
            Self::TwoMessages { .. } => "two messages",
            Self::SenderOrder { .. } => "sender order",
            Self::Twice { .. } => "twice",
            Self::Moved { .. } => "moved",
            Self::Content { .. } => "content",
            Self::RefusedYetStored { .. } => "refused yet stored",
            Self::Forbidden { .. } => "forbidden",
            Self::NeedlessResync { .. } => "needless resync",
        }
    }
}
