//! Messages from the backend, through the same pipeline as any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::AdminContext;
use super::problem::{Body as Arrived, Problem, parse};
use crate::message::{Draft, DraftError};
use crate::pipeline::{Origin, SendOutcome, SendRequest};
use crate::telemetry::{Refusal, metrics};
use crate::types::UserId;
use crate::wire::pb::send_message_req::Content;
use crate::wire::pb::{ErrorCode, MediaRef, MessageType, SendMessageReq};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    conversation_id: String,
    client_msg_id: String,
    /// The sender; without it, or 0, the system.
    #[serde(default)]
    from_user_id: i64,
    /// Without it: what the content says, or SYSTEM from the system.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    text_content: Option<String>,
    #[serde(default)]
    binary_content_base64: Option<String>,
    #[serde(default)]
    media_ref: Option<Media>,
    #[serde(default)]
    meta: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Media {
    media_id: String,
    url: String,
    size: i64,
    md5: String,
    mime: String,
    duration: i32,
    width: i32,
    height: i32,
    thumbnail_url: String,
}

impl From<Media> for MediaRef {
    fn from(media: Media) -> Self {
        let Media { media_id, url, size, md5, mime, duration, width, height, thumbnail_url } = media;
        Self { media_id, url, size, md5, mime, duration, width, height, thumbnail_url }
    }
}

pub(super) async fn send(
    State(context): State<Arc<AdminContext>>,
    body: Arrived,
) -> Result<Json<Value>, Problem> {
    let body: Body = parse(body)?;
    let pipeline = context.pipeline()?;
    metrics().messages_received.increment(1);
    let draft = draft(body).inspect_err(|_| metrics().count_refused(Refusal::Invalid))?;
    let (asker, outcome) = oneshot::channel();
    pipeline.send(SendRequest::new(draft, Origin::Api(asker)));
    // The lane answers within its own deadline; this one is for its death.
    let deadline = pipeline.ports().send_wait * 3;
    match timeout(deadline, outcome).await {
        Ok(Ok(SendOutcome::Stored(ack))) => Ok(Json(json!({
            "conversationId": ack.conversation_id,
            "clientMsgId": ack.client_msg_id,
            "serverMsgId": ack.server_msg_id,
            "seq": ack.seq,
            "epoch": ack.epoch,
            "serverTime": ack.server_time,
            "duplicate": ack.duplicate,
            "level": ack.level,
        }))),
        Ok(Ok(SendOutcome::Refused(error))) => {
            let status = match error.code() {
                ErrorCode::Invalid => StatusCode::CONFLICT,
                ErrorCode::NotFound => StatusCode::NOT_FOUND,
                ErrorCode::Forbidden => StatusCode::FORBIDDEN,
                ErrorCode::RetryLater => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(Problem::new(status, error.message))
        }
        _ => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time: send the same again")),
    }
}

fn draft(body: Body) -> Result<Draft, Problem> {
    let from = if body.from_user_id == 0 { Ok(UserId::SYSTEM) } else { UserId::new(body.from_user_id) };
    let from = from.map_err(|error| Problem::invalid(format!("fromUserId: {error}")))?;
    let (content, implied) = match (body.text_content, body.media_ref, body.binary_content_base64) {
        (Some(text), None, None) => (Some(Content::TextContent(text)), MessageType::Text),
        (None, Some(media), None) => (Some(Content::MediaRef(media.into())), MessageType::File),
        (None, None, Some(text)) => {
            let bytes = STANDARD.decode(text);
            let bytes = bytes.map_err(|error| Problem::invalid(format!("binaryContentBase64: {error}")))?;
            (Some(Content::BinaryContent(bytes.into())), MessageType::Custom)
        }
        (None, None, None) => (None, MessageType::Text),
        _ => {
            return Err(Problem::invalid("textContent, mediaRef and binaryContentBase64 exclude each other"));
        }
    };
    let kind = match body.kind {
        Some(name) => MessageType::from_str_name(&format!("MESSAGE_TYPE_{name}")).ok_or_else(|| {
            Problem::invalid("type must be TEXT, IMAGE, AUDIO, VIDEO, FILE, LOCATION, CUSTOM or SYSTEM")
        })?,
        None if from == UserId::SYSTEM => MessageType::System,
        None => implied,
    };
    let request = SendMessageReq {
        conversation_id: body.conversation_id,
        client_msg_id: body.client_msg_id,
        r#type: kind.into(),
        meta: body.meta,
        content,
    };
    Draft::new(request, from, "").map_err(|error| match error {
        DraftError::NotFound => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
        other => Problem::invalid(other.to_string()),
    })
}
