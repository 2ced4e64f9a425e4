//! The verb *pull*: ranges of a conversation and pages of the index, read on
//! request.

use std::sync::Arc;

use super::{Pipeline, Ports};
use crate::hub::{Frame, Peer};
use crate::store::{Span, StoreError};
use crate::telemetry::FrameKind;
use crate::types::ConversationId;
use crate::wire::pb::{ConversationsReq, ConversationsResp, Error, ErrorCode, SyncReq, SyncResp};
use crate::wire::{Payload, encode, error, reply};

/// Most pulls of all connections at a time.
pub(super) const MAX_CONCURRENT: usize = 256;
const MAX_MESSAGES: u32 = 500;
const DEFAULT_MESSAGES: u32 = 50;
const MAX_CONVERSATIONS: u32 = 200;
const DEFAULT_CONVERSATIONS: u32 = 100;
/// Most bytes of one answer's messages, where the outbox has room for four
/// times as much.
const MAX_BYTES: usize = 256 * 1024;
/// Most pulls of one connection at a time.
const MAX_OF_ONE: u32 = 2;

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
            let answer = match permit {
                Ok(_permit) if among_few => ports.read(&peer, &pull).await,
                _ => Err(retry_later("too many reads at once")),
            };
            let payload = answer.unwrap_or_else(|mut error| {
                error.ref_request_id = pull.request_id().to_owned();
                Payload::Error(error)
            });
            peer.answer(Frame::control(encode(&reply(&trace_id, payload)), FrameKind::Other));
            peer.pull_answered();
        });
    }
}

fn retry_later(message: &str) -> Error {
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
    async fn read(&self, peer: &Peer, pull: &Pull) -> Result<Payload, Error> {
        match pull {
            Pull::Sync(request) => self.sync(peer, request).await.map(Payload::SyncResp),
            Pull::Conversations(request) => self.list(peer, request).await.map(Payload::ConversationsResp),
        }
    }

    async fn sync(&self, peer: &Peer, request: &SyncReq) -> Result<SyncResp, Error> {
        let conversation = ConversationId::parse(&request.conversation_id)
            .map_err(|e| error(ErrorCode::Invalid, format!("conversationId: {e}")))?;
        if conversation.peer_of(peer.identity.user).is_none() {
            return Err(Error {
                conversation_id: request.conversation_id.clone(),
                ..error(ErrorCode::NotFound, "conversation not found")
            });
        }
        if request.from_seq < 0 {
            return Err(error(ErrorCode::Invalid, "fromSeq must not be negative"));
        }
        let limit = if request.limit == 0 { DEFAULT_MESSAGES } else { request.limit.min(MAX_MESSAGES) };
        let limit = usize::try_from(limit).unwrap_or(1);
        let room = usize::try_from(self.hub.limits().bytes).unwrap_or(usize::MAX);
        let max_bytes = MAX_BYTES.min(room / 4);
        let span = Span { from: request.from_seq, limit, max_bytes, direction: request.direction() };
        let page = self.store.page(&conversation, span).await?;
        Ok(SyncResp {
            request_id: request.request_id.clone(),
            conversation_id: request.conversation_id.clone(),
            epoch: page.epoch,
            messages: page.messages,
            top_seq: page.top,
            first_available_seq: page.first_available,
            has_more: page.has_more,
        })
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
