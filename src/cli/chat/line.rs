//! What is shown, before it is known how.

use super::outbox::{Change, Tick};
use crate::wire::pb::{GoAway, GoAwayReason, Kick, KickReason, MessageType, Push, push};

/// One thing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Of another user. `fresh` = not read before.
    Peer { from: i64, text: String, at_ms: i64, fresh: bool },
    /// Of oneself: of another device, or before this chat.
    Own { text: String, at_ms: i64, fresh: bool },
    /// Just typed here.
    Typed { text: String, at_ms: i64 },
    /// A tick rose.
    Tick(Change),
    /// A message was refused.
    Failed { why: String },
    /// About the connection or the chat itself.
    Notice(String),
}

/// What the prompt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) tick: Option<Tick>,
    pub(super) pending: usize,
    pub(super) typing: bool,
    pub(super) connected: bool,
}

/// The text of a message, or a description of what is not text.
pub(super) fn content_words(push: &Push) -> String {
    match &push.content {
        Some(push::Content::TextContent(text)) => text.clone(),
        Some(push::Content::MediaRef(media)) => {
            let kind = kind_words(push.r#type());
            if media.url.is_empty() {
                format!("<{kind} {}>", media.media_id)
            } else {
                format!("<{kind} {}>", media.url)
            }
        }
        Some(push::Content::BinaryContent(bytes)) => format!("<{} bytes>", bytes.len()),
        None => "<empty>".to_owned(),
    }
}

fn kind_words(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Image => "image",
        MessageType::Audio => "audio",
        MessageType::Video => "video",
        MessageType::File => "file",
        MessageType::Location => "location",
        MessageType::Unspecified | MessageType::Text | MessageType::Custom | MessageType::System => {
            "attachment"
        }
    }
}

/// A `GoAway` in words.
pub(super) fn go_away_words(go_away: &GoAway) -> String {
    let why = match go_away.reason() {
        GoAwayReason::Drain => "the gateway stops",
        GoAwayReason::Overload => "the gateway is overloaded",
        GoAwayReason::Rebalance => "the gateway hands connections over",
        GoAwayReason::Resync => "the gateway asks for a fresh start",
        GoAwayReason::Unspecified => "the gateway asks to reconnect",
    };
    format!("{why}; reconnecting in {:.1} s", f64::from(go_away.reconnect_after_ms) / 1000.0)
}

/// A `Kick` in words.
pub(super) fn kick_words(kick: &Kick) -> String {
    let why = match kick.reason() {
        KickReason::Replaced => "this device connected elsewhere (give one of them another --device)",
        KickReason::Admin => "an operator removed this device",
        KickReason::TokenExpired => "the token expired",
        KickReason::TokenRevoked => "the token was revoked",
        KickReason::SlowConsumer => "this device reads too slowly",
        KickReason::Unspecified => "the gateway removed this device",
    };
    why.to_owned()
}
