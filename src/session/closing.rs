//! How a connection takes its leave: perhaps a `Kick`, then a Close frame.

use std::collections::VecDeque;

use super::outbound::count_dropped;
use crate::hub::{Ending, Frame};
use crate::telemetry::FrameKind;
use crate::types::CloseReason;
use crate::wire::pb::{Kick, KickReason};
use crate::wire::{Payload, close_frame, encode, reply};

/// What is left to say before the end. Boxed wherever it is kept: most
/// connections have none.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    /// Why.
    pub(super) reason: CloseReason,
    /// Code and text of the Close frame; `None` = none is sent.
    close: Option<(u16, String)>,
    kick: Option<Kick>,
    /// Whether it is queued already.
    pub(super) said: bool,
}

impl Closing {
    /// For this reason, saying this; a reason without a close code is silent.
    pub(super) fn new(reason: CloseReason, text: &str) -> Box<Self> {
        let close = reason.row().code.map(|code| (code, text.to_owned()));
        Box::new(Self { reason, close, kick: None, said: false })
    }

    /// The answer to a peer's Close: its code, or 1000, which says the same.
    pub(super) fn echo(code: Option<u16>) -> Box<Self> {
        let close = Some((code.unwrap_or(1000), String::new()));
        Box::new(Self { reason: CloseReason::PeerClosed, close, kick: None, said: false })
    }

    /// What somebody else here wants.
    pub(super) fn asked(ending: Ending) -> Box<Self> {
        let kick = match ending.reason {
            CloseReason::Replaced => Some(KickReason::Replaced),
            CloseReason::Kicked => Some(KickReason::Admin),
            CloseReason::TokenExpired => Some(KickReason::TokenExpired),
            CloseReason::SlowConsumer => Some(KickReason::SlowConsumer),
            _ => None,
        };
        let kick = kick.map(|reason| Kick {
            reason: reason.into(),
            may_reconnect: ending.may_reconnect,
            retry_after_ms: 0,
        });
        let mut closing = Self::new(ending.reason, ending.reason.row().text);
        closing.kick = kick;
        closing
    }

    /// Puts the last frames behind `queue`; a slow consumer's backlog goes,
    /// but for the frame it has a part of.
    pub(super) fn say(&mut self, queue: &mut VecDeque<Frame>, offset: u32) {
        self.said = true;
        if self.reason == CloseReason::SlowConsumer {
            let keep = usize::from(offset > 0 && !queue.is_empty());
            let dropped = queue.split_off(keep);
            count_dropped(&dropped, true);
        }
        if let Some(kick) = self.kick.take() {
            queue.push_back(Frame::control(encode(&reply("", Payload::Kick(kick))), FrameKind::Other));
        }
        if let Some((code, text)) = self.close.take() {
            queue.push_back(Frame::control(close_frame(code, &text), FrameKind::WebSocket));
        }
    }
}
