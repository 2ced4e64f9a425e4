//! The verb *pull*: ranges of a conversation (`sync`) and pages of the index,
//! read on request.

use std::sync::Arc;

use super::{Pipeline, Ports};
use crate::hub::{Frame, Peer};
use crate::store::StoreError;
use crate::telemetry::FrameKind;
use crate::wire::pb::{ConversationsReq, ConversationsResp, Error, ErrorCode, SyncReq};
use crate::wire::{Payload, encode, error, reply};

/// Most pulls of all connections at a time.
pub(super) const MAX_CONCURRENT: usize = 256;
const MAX_CONVERSATIONS: u32 = 200;
const DEFAULT_CONVERSATIONS: u32 = 100;
/// Most pulls of one connection at a time.
const MAX_OF_ONE: u16 = 2;

/// A request to read.
#[derive(Debug)]
pub(crate) enum Pull {
    /// Messages.
    Sync(SyncReq),
    /// Conversations.
    Conversations(ConversationsReq),
}

impl Pull {
    fn request_id(&self) -> &str {
        match self {
            Self::Sync(request) => &request.request_id,
            Self::Conversations(request) => &request.request_id,
        }
    }
}

impl Pipeline {
    /// Reads and answers in a task of its own; above the bound the answer is
    /// RETRY_LATER.
    pub(crate) fn pull(&self, peer: &Arc<Peer>, trace_id: String, pull: Pull) {
        let among_few = peer.pull_started() <= MAX_OF_ONE;
        let peer = Arc::clone(peer);
        let ports = Arc::clone(&self.ports);
        let permit = Arc::clone(&self.pulls).try_acquire_owned();
        tokio::spawn(async move {
            let answered = match permit {
                Ok(_permit) if among_few => ports.read(&peer, &trace_id, &pull).await,
                _ => Err(retry_later("too many reads at once")),
            };
            if let Err(error) = answered {
                let ref_request_id = pull.request_id().to_owned();
                answer(&peer, &trace_id, Payload::Error(Error { ref_request_id, ..error }));
            }
            peer.pull_answered();
        });
    }
}

pub(super) fn answer(peer: &Peer, trace_id: &str, payload: Payload) {
    peer.answer(frame(trace_id, payload));
}

pub(super) fn frame(trace_id: &str, payload: Payload) -> Frame {
    Frame::control(encode(&reply(trace_id, payload)), FrameKind::Other)
}

pub(super) fn retry_later(message: &str) -> Error {
    Error { retry_after_ms: 1_000, ..error(ErrorCode::RetryLater, message) }
}

impl From<StoreError> for Error {
    fn from(failure: StoreError) -> Self {
        match failure {
            StoreError::Unavailable => retry_later("the store does not answer"),
            StoreError::Broken(why) => {
                tracing::error!(why, "read failed");
                error(ErrorCode::Internal, "the conversation could not be read")
            }
        }
    }
}

impl Ports {
    async fn read(&self, peer: &Arc<Peer>, trace_id: &str, pull: &Pull) -> Result<(), Error> {
        match pull {
            Pull::Sync(request) => self.sync(peer, trace_id, request).await,
            Pull::Conversations(request) => {
                let list = self.list(peer, request).await?;
                answer(peer, trace_id, Payload::ConversationsResp(list));
                Ok(())
            }
        }
    }

    async fn list(&self, peer: &Peer, request: &ConversationsReq) -> Result<ConversationsResp, Error> {
        let offset = match request.cursor.as_str() {
            "" => 0,
            cursor => cursor
                .parse::<u32>()
                .ok()
                .and_then(|offset| usize::try_from(offset).ok())
                .ok_or_else(|| error(ErrorCode::Invalid, "cursor is not one of ours"))?,
        };
        let limit =
            if request.limit == 0 { DEFAULT_CONVERSATIONS } else { request.limit.min(MAX_CONVERSATIONS) };
        let limit = usize::try_from(limit).unwrap_or(1);
        let page = self.store.conversations(peer.identity.user, offset, limit).await?;
        let next_cursor =
            if page.has_more { offset.saturating_add(limit).to_string() } else { String::new() };
        Ok(ConversationsResp {
            request_id: request.request_id.clone(),
            conversations: page.positions,
            next_cursor,
        })
    }
}
