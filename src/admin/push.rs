//! Ephemeral payloads from the backend.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Body as Arrived, Problem, not_found, parse, parse_conversation};
use crate::hub::Class;
use crate::pipeline::{Outgoing, Ports, Reached};
use crate::telemetry::FrameKind;
use crate::types::{ConversationId, UserId};
use crate::wire::pb::Custom;
use crate::wire::{Payload, reply};

const MAX_USERS: usize = 10_000;
/// Members of a group read at a time.
const MEMBERS: usize = 1_000;
/// What still fits a client's frame.
const MAX_PAYLOAD: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    target: Target,
    topic: String,
    /// A text is sent as it is, any other JSON value as its JSON text.
    #[serde(default)]
    payload: Option<Value>,
    /// Bytes, instead of `payload`.
    #[serde(default)]
    payload_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Target {
    #[serde(default)]
    users: Option<Vec<i64>>,
    #[serde(default)]
    conversation: Option<String>,
    #[serde(default)]
    all: Option<bool>,
}

pub(super) async fn push(
    State(context): State<Arc<AdminContext>>,
    body: Arrived,
) -> Result<Json<Value>, Problem> {
    let body: Body = parse(body)?;
    if body.topic.is_empty() || body.topic.len() > 256 {
        return Err(Problem::invalid("topic must be 1-256 bytes"));
    }
    let payload = match (body.payload, body.payload_base64) {
        (Some(_), Some(_)) => return Err(Problem::invalid("payload and payloadBase64 exclude each other")),
        (Some(Value::String(text)), None) => text.into_bytes(),
        (Some(value), None) => value.to_string().into_bytes(),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|error| Problem::invalid(format!("payloadBase64: {error}")))?
        }
        (None, None) => Vec::new(),
    };
    if payload.len() > MAX_PAYLOAD {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload is longer than 65536 bytes"));
    }
    let ports = context.pipeline()?.ports();
    let custom = Custom { topic: body.topic, payload: payload.into(), ..Custom::default() };
    let users = match (body.target.users, body.target.conversation, body.target.all) {
        (Some(users), None, None) => parse_users(&users)?,
        (None, Some(id), None) => {
            let conversation = parse_conversation("target.conversation", &id)?;
            let reached = to_conversation(ports, &conversation, custom).await?;
            return Ok(Json(answer(reached)));
        }
        (None, None, Some(true)) => {
            let envelope = reply("", Payload::Custom(custom));
            let reached = ports.deliver_all(&envelope, Class::Ephemeral, FrameKind::Ephemeral).await;
            return Ok(Json(json!({ "online": reached.online, "delivered": reached.delivered })));
        }
        _ => return Err(Problem::invalid("target must be one of users, conversation, or all: true")),
    };
    Ok(Json(answer(to_users(ports, users, custom).await)))
}

fn answer(reached: Reached) -> Value {
    json!({ "online": reached.online, "offline": reached.offline, "delivered": reached.delivered })
}

async fn to_users(ports: &Ports, users: Vec<UserId>, custom: Custom) -> Reached {
    let envelope = reply("", Payload::Custom(custom));
    let kind = FrameKind::Ephemeral;
    let outgoing =
        Outgoing { users, except: None, envelope, class: Class::Ephemeral, kind, mark: None, audience: None };
    ports.deliver(&[outgoing]).await
}

/// To both users, or to the members of a group, a page of them at a time.
async fn to_conversation(
    ports: &Ports,
    conversation: &ConversationId,
    custom: Custom,
) -> Result<Reached, Problem> {
    let custom = Custom { conversation_id: conversation.text(), ..custom };
    if let ConversationId::P2p(lo, hi) = *conversation {
        return Ok(to_users(ports, vec![lo, hi], custom).await);
    }
    let mut reached = Reached::default();
    let mut after = None;
    loop {
        let page = ports.store.members(conversation, after, MEMBERS).await?;
        let page = page.ok_or_else(|| not_found("conversation"))?;
        let users: Vec<UserId> = page.members.into_iter().map(|(user, _)| user).collect();
        after = users.last().copied();
        reached += to_users(ports, users, custom.clone()).await;
        if !page.has_more {
            return Ok(reached);
        }
    }
}

fn parse_users(ids: &[i64]) -> Result<Vec<UserId>, Problem> {
    if ids.is_empty() || ids.len() > MAX_USERS {
        return Err(Problem::invalid("target.users must have 1-10000 entries"));
    }
    let mut users = ids
        .iter()
        .enumerate()
        .map(|(i, &id)| {
            UserId::new(id).map_err(|error| Problem::invalid(format!("target.users[{i}]: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users)
}
