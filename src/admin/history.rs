//! The log of a conversation, for backends.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Asked, Problem, asked, not_found, page_size, parse_conversation};
use crate::store::Span;
use crate::types::UserId;
use crate::wire::pb::push::Content;
use crate::wire::pb::{Direction, MediaRef, Push};

const DEFAULT_MESSAGES: usize = 50;
const MAX_MESSAGES: usize = 500;
/// Most bytes of the messages of one answer, as they are stored.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    conversation_id: String,
    #[serde(default)]
    from_seq: i64,
    limit: Option<usize>,
    #[serde(default)]
    direction: Way,
    /// As this user may see it.
    user_id: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    #[default]
    Forward,
    Backward,
}

pub(super) async fn history(
    State(context): State<Arc<AdminContext>>,
    query: Asked<Wanted>,
) -> Result<Json<Value>, Problem> {
    let wanted = asked(query)?;
    let conversation = parse_conversation("conversationId", &wanted.conversation_id)?;
    if wanted.from_seq < 0 {
        return Err(Problem::invalid("fromSeq must not be negative"));
    }
    let limit = page_size(wanted.limit, DEFAULT_MESSAGES, MAX_MESSAGES)?;
    let viewer = wanted.user_id.map(UserId::new).transpose();
    let viewer = viewer.map_err(|error| Problem::invalid(format!("userId: {error}")))?;
    let direction = match wanted.direction {
        Way::Forward => Direction::Forward,
        Way::Backward => Direction::Backward,
    };
    let span = Span { from: wanted.from_seq, limit, max_bytes: MAX_BYTES, direction };
    let page = context.pipeline()?.ports().history(&conversation, viewer, span).await?;
    let page = page.ok_or_else(|| not_found("conversation"))?;
    Ok(Json(json!({
        "conversationId": wanted.conversation_id,
        "epoch": page.epoch,
        "topSeq": page.top,
        "firstAvailableSeq": page.first_available,
        "hasMore": page.has_more,
        "messages": page.messages.iter().map(message).collect::<Vec<_>>(),
    })))
}

fn message(push: &Push) -> Value {
    let mut message = json!({
        "seq": push.seq,
        "epoch": push.epoch,
        "serverMsgId": push.server_msg_id,
        "clientMsgId": push.client_msg_id,
        "fromUserId": push.from_user_id,
        "fromDeviceId": push.from_device_id,
        "type": push.r#type().as_str_name().trim_start_matches("MESSAGE_TYPE_"),
        "meta": push.meta,
        "serverTime": push.server_time,
    });
    let content = match &push.content {
        Some(Content::TextContent(text)) => Some(("textContent", json!(text))),
        Some(Content::MediaRef(media)) => Some(("mediaRef", media_ref(media))),
        Some(Content::BinaryContent(bytes)) => Some(("binaryContentBase64", json!(STANDARD.encode(bytes)))),
        None => None,
    };
    if let (Some((name, content)), Some(fields)) = (content, message.as_object_mut()) {
        fields.insert(name.to_owned(), content);
    }
    message
}

fn media_ref(media: &MediaRef) -> Value {
    json!({
        "mediaId": media.media_id,
        "url": media.url,
        "size": media.size,
        "md5": media.md5,
        "mime": media.mime,
        "duration": media.duration,
        "width": media.width,
        "height": media.height,
        "thumbnailUrl": media.thumbnail_url,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::MessageType;

    #[test]
    fn every_kind_of_content_is_there() {
        let push =
            |content| Push { r#type: MessageType::Custom.into(), content: Some(content), ..Push::default() };
        let text = message(&push(Content::TextContent("hi".to_owned())));
        assert_eq!((&text["type"], &text["textContent"]), (&json!("CUSTOM"), &json!("hi")));
        let binary = message(&push(Content::BinaryContent(vec![0, 255].into())));
        assert_eq!(binary["binaryContentBase64"], json!("AP8="));
        let media = message(&push(Content::MediaRef(MediaRef { width: 7, ..MediaRef::default() })));
        assert_eq!(media["mediaRef"]["width"], json!(7));
        assert!(media.get("textContent").is_none());
    }
}
