//! Who is in a group, as what, and who is kept out.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminContext;
use super::conversations::{HistoryWord, RoleWord};
use super::problem::{Asked, Body as Arrived, Problem, asked, not_found, page_size, parse};
use super::problem::{parse_conversation, parse_group, parse_user};
use crate::store::{Changed, Member, MemberChange};
use crate::types::{ConversationId, UserId};

type Context = State<Arc<AdminContext>>;

const DEFAULT_MEMBERS: usize = 100;
const MAX_MEMBERS: usize = 1_000;

fn describe(user: UserId, member: &Member) -> Value {
    json!({
        "userId": user.get(),
        "role": member.role.as_str(),
        "sinceSeq": member.since_seq,
        "muteUntil": member.mute_until,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listing {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): Context,
    Path(id): Path<String>,
    query: Asked<Listing>,
) -> Result<Json<Value>, Problem> {
    let group = parse_group("id", &id)?;
    let query = asked(query)?;
    let limit = page_size(query.limit, DEFAULT_MEMBERS, MAX_MEMBERS)?;
    let after = query.cursor.map(|cursor| UserId::parse(&cursor)).transpose();
    let after = after.map_err(|_| Problem::invalid("cursor is not one of ours"))?;
    let page = context.pipeline()?.ports().store.members(&group, after, limit).await?;
    let page = page.ok_or_else(|| not_found("conversation"))?;
    let next = page.members.last().filter(|_| page.has_more).map(|(user, _)| user.to_string());
    let members = page.members.iter().map(|(user, member)| describe(*user, member));
    Ok(Json(json!({ "members": members.collect::<Vec<_>>(), "nextCursor": next })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Body {
    role: Option<RoleWord>,
    /// Unix ms; 0 = may send.
    mute_until: Option<i64>,
    /// What a new member sees; default: as the group says.
    history: Option<HistoryWord>,
}

pub(super) async fn put(
    State(context): Context,
    Path((id, user)): Path<(String, String)>,
    body: Arrived,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (group, user) = (parse_group("id", &id)?, parse_user(&user)?);
    let body: Body = if body.as_ref().is_ok_and(Bytes::is_empty) { Body::default() } else { parse(body)? };
    if body.mute_until.is_some_and(|until| until < 0) {
        return Err(Problem::invalid("muteUntil must not be negative"));
    }
    let change = MemberChange {
        role: body.role.map(Into::into),
        mute_until: body.mute_until,
        history: body.history.map(Into::into),
    };
    let ports = context.pipeline()?.ports();
    let (status, member) = match ports.put_member(group.clone(), user, change).await? {
        Changed::Joined(member) => (StatusCode::CREATED, member),
        Changed::Updated { after, .. } => (StatusCode::OK, after),
        Changed::Same => {
            let roster = ports.store.roster(&group, &[user]).await?;
            let member = roster.and_then(|roster| roster.members.first().copied().flatten());
            (StatusCode::OK, member.ok_or_else(|| not_found("member"))?)
        }
        Changed::Blocked => {
            return Err(Problem::new(StatusCode::CONFLICT, format!("user {user} is on the blacklist")));
        }
        Changed::NotFound | Changed::Removed => return Err(not_found("conversation")),
    };
    Ok((status, Json(describe(user, &member))))
}

pub(super) async fn remove(
    State(context): Context,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let (group, user) = (parse_group("id", &id)?, parse_user(&user)?);
    match context.pipeline()?.ports().remove_member(group, user).await? {
        Changed::Removed => Ok(Json(json!({ "userId": user.get(), "removed": true }))),
        _ => Err(not_found("member")),
    }
}

pub(super) async fn blacklist(
    State(context): Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let conversation = parse_conversation("id", &id)?;
    let store = &context.pipeline()?.ports().store;
    let users = store.blacklist(&conversation).await?;
    let group = matches!(conversation, ConversationId::Group(_));
    if users.is_empty() && group && store.describe(&conversation).await?.is_none() {
        return Err(not_found("conversation"));
    }
    Ok(Json(json!({ "users": users.into_iter().map(UserId::get).collect::<Vec<_>>() })))
}

pub(super) async fn block(
    State(context): Context,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let (conversation, user) = blockable(&id, &user)?;
    match context.pipeline()?.ports().block(conversation, user, true).await? {
        Changed::NotFound => Err(not_found("conversation")),
        changed => Ok(Json(json!({
            "userId": user.get(),
            "blocked": true,
            "removed": changed == Changed::Removed,
        }))),
    }
}

pub(super) async fn unblock(
    State(context): Context,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let (conversation, user) = blockable(&id, &user)?;
    match context.pipeline()?.ports().block(conversation, user, false).await? {
        Changed::NotFound => Err(not_found("conversation")),
        Changed::Same => Err(not_found("entry of the blacklist")),
        _ => Ok(Json(json!({ "userId": user.get(), "blocked": false }))),
    }
}

/// Of two users only they can be kept from sending.
fn blockable(id: &str, user: &str) -> Result<(ConversationId, UserId), Problem> {
    let (conversation, user) = (parse_conversation("id", id)?, parse_user(user)?);
    let outside = matches!(conversation, ConversationId::P2p(..)) && conversation.peer_of(user).is_none();
    if outside { Err(not_found("member")) } else { Ok((conversation, user)) }
}
