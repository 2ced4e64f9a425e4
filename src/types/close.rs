//! The one table of endings: every way a connection ends, with the close
//! code, text and advice its peer gets and the label it is counted under.

use tracing::Level;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer sent a Close frame.
    PeerClosed,
    /// The socket ended without a Close frame.
    PeerGone,
    /// The gateway stops.
    Shutdown,
    /// Silence for 2.5 heartbeat intervals.
    HeartbeatTimeout,
    /// Broken WebSocket framing.
    Protocol,
    /// A text message; only binary is spoken.
    NotBinary,
    /// Broken varint, length, protobuf, or UTF-8.
    InvalidPayload,
    /// A rule of the protocol was broken too often.
    Policy,
    /// A message above the limit.
    TooLarge,
    /// A fault of ours.
    Internal,
    /// The gateway lost its lease to another process.
    Superseded,
    /// Overload; come back later.
    Overload,
    /// No valid credentials in time.
    Unauthenticated,
    /// Credentials that ran out on a live connection.
    TokenExpired,
    /// An operator removed the device.
    Kicked,
    /// Too many messages.
    RateLimited,
    /// The same device connected again.
    Replaced,
    /// The client must resume from the start.
    Resync,
    /// The peer does not read.
    SlowConsumer,
}

/// What the table says of one ending.
#[derive(Debug, Clone, Copy)]
pub struct CloseRow {
    /// Close code on the wire; `None` where no Close frame is sent.
    pub code: Option<u16>,
    /// Close text on the wire, at most 123 bytes.
    pub text: &'static str,
    /// Whether the client is advised to connect again.
    pub may_reconnect: bool,
    /// `reason` label of `tidegate_connections_closed_total`.
    pub label: &'static str,
    /// At what level the ending is logged.
    pub level: Level,
}

const fn row(
    code: u16,
    text: &'static str,
    may_reconnect: bool,
    label: &'static str,
    level: Level,
) -> CloseRow {
    CloseRow { code: Some(code), text, may_reconnect, label, level }
}

impl CloseReason {
    /// Every ending, for documentation and for registering the metric.
    pub const ALL: [Self; 19] = [
        Self::PeerClosed,
        Self::PeerGone,
        Self::Shutdown,
        Self::HeartbeatTimeout,
        Self::Protocol,
        Self::NotBinary,
        Self::InvalidPayload,
        Self::Policy,
        Self::TooLarge,
        Self::Internal,
        Self::Superseded,
        Self::Overload,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::Kicked,
        Self::RateLimited,
        Self::Replaced,
        Self::Resync,
        Self::SlowConsumer,
    ];

    /// The row of this ending.
    #[must_use]
    pub const fn row(self) -> CloseRow {
        match self {
            Self::PeerClosed => row(1000, "", true, "peer_closed", Level::DEBUG),
            Self::PeerGone => CloseRow {
                code: None,
                text: "",
                may_reconnect: true,
                label: "peer_gone",
                level: Level::DEBUG,
            },
            Self::Shutdown => row(1001, "gateway stops", true, "shutdown", Level::DEBUG),
            Self::HeartbeatTimeout => row(1001, "heartbeat timeout", true, "heartbeat_timeout", Level::DEBUG),
            Self::Protocol => row(1002, "websocket protocol error", true, "protocol_error", Level::INFO),
            Self::NotBinary => row(1003, "only binary messages are spoken", false, "not_binary", Level::INFO),
            Self::InvalidPayload => row(1007, "invalid payload", true, "invalid_payload", Level::INFO),
            Self::Policy => row(1008, "policy violation", true, "policy", Level::INFO),
            Self::TooLarge => row(1009, "message too large", true, "too_large", Level::INFO),
            Self::Internal => row(1011, "internal error", true, "internal", Level::ERROR),
            Self::Superseded => row(1012, "service restart", true, "superseded", Level::WARN),
            Self::Overload => row(1013, "try again later", true, "overload", Level::INFO),
            Self::Unauthenticated => row(4001, "unauthenticated", false, "unauthenticated", Level::INFO),
            Self::TokenExpired => row(4001, "token expired", false, "token_expired", Level::DEBUG),
            Self::Kicked => row(4003, "kicked by an operator", false, "kicked", Level::INFO),
            Self::RateLimited => row(4008, "rate limit", true, "rate_limited", Level::INFO),
            Self::Replaced => {
                row(4009, "replaced by a newer connection of this device", false, "replaced", Level::DEBUG)
            }
            Self::Resync => row(4010, "resync required", true, "resync", Level::INFO),
            Self::SlowConsumer => row(4011, "slow consumer", true, "slow_consumer", Level::INFO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_unique_and_texts_fit_a_control_frame() {
        let labels: HashSet<_> = CloseReason::ALL.iter().map(|r| r.row().label).collect();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        assert!(CloseReason::ALL.iter().all(|r| r.row().text.len() <= 123));
    }
}
