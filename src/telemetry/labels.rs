//! Label values that the rest of the program chooses from.

use crate::types::EventField;

/// Kinds of frames, as counted by `tidegate_frames_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum FrameKind {
    /// `00`, Heartbeat, HeartbeatAck.
    Heartbeat,
    /// SendMessageReq.
    Send,
    /// Ack.
    Ack,
    /// Receipt.
    Receipt,
    /// Typing, Custom.
    Ephemeral,
    /// Push, PushBatch.
    Push,
    /// WebSocket ping, pong and close.
    WebSocket,
    /// Everything else.
    Other,
}

impl FrameKind {
    pub(super) const LABELS: [&str; 8] =
        ["heartbeat", "send", "ack", "receipt", "ephemeral", "push", "websocket", "other"];

    const ALL: [Self; 8] = [
        Self::Heartbeat,
        Self::Send,
        Self::Ack,
        Self::Receipt,
        Self::Ephemeral,
        Self::Push,
        Self::WebSocket,
        Self::Other,
    ];

    /// As it is called in the metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        let found = Self::ALL.iter().position(|kind| *kind == self);
        found.and_then(|at| Self::LABELS.get(at)).copied().unwrap_or("other")
    }

    /// By what it is called.
    #[must_use]
    pub(crate) fn of(label: &str) -> Self {
        let found = Self::LABELS.iter().position(|known| *known == label);
        found.and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Other)
    }
}

/// Why a message was refused, as counted by `tidegate_messages_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A field is wrong.
    Invalid,
    /// Not a member, or not allowed.
    Forbidden,
    /// The store did not confirm in time.
    RetryLater,
    /// The send queue is full.
    QueueFull,
    /// A fault of ours.
    Internal,
}

/// Why a client was told to pull, as counted by
/// `tidegate_conversation_hints_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HintCause {
    /// It reads too slowly for copies.
    SlowReader,
    /// The group is too large or too busy.
    Hot,
    /// It missed more than is replayed.
    Replay,
    /// Messages are missing that cannot be pushed.
    Gap,
}

/// Why a client was told that its history is another one, as counted by
/// `tidegate_resyncs_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResyncCause {
    /// Another message stands where it had one.
    OtherMessage,
    /// The log ends before what it had.
    Beyond,
    /// What it had is trimmed, and the epoch is another one.
    Trimmed,
}

/// Why an event was refused, as counted by
/// `tidegate_analytics_events_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventRefusal {
    /// It is bad itself, as this field shows first.
    Field(EventField),
    /// Good itself, but refused with another one of its call.
    Strict,
    /// The store did not confirm it.
    Unavailable,
}

impl EventRefusal {
    const ALL: [Self; 10] = [
        Self::Field(EventField::Event),
        Self::Field(EventField::InstallId),
        Self::Field(EventField::EventName),
        Self::Field(EventField::EventTime),
        Self::Field(EventField::Properties),
        Self::Field(EventField::EventId),
        Self::Field(EventField::UserId),
        Self::Field(EventField::Client),
        Self::Strict,
        Self::Unavailable,
    ];

    pub(super) const LABELS: [&str; 10] = [
        "event",
        "install_id",
        "event_name",
        "event_time",
        "properties",
        "event_id",
        "user_id",
        "client",
        "strict",
        "unavailable",
    ];

    /// Its place among the labels.
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|why| *why == self).unwrap_or(0)
    }
}
