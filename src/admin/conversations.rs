//! Groups made, looked at and ended.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Asked, Body as Arrived, Problem, asked, not_found, page_size, parse};
use super::problem::{parse_conversation, parse_group, parse_user};
use crate::store::{Created, Description, History, Role};
use crate::types::{ConversationId, UserId};

type Context = State<Arc<AdminContext>>;

/// Most members of a creation.
const MAX_MEMBERS: usize = 100_000;
/// Room for as many members, each with its role.
pub(super) const MAX_BODY: usize = 8 << 20;
const DEFAULT_CONVERSATIONS: usize = 100;
const MAX_CONVERSATIONS: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    id: String,
    members: Vec<Entry>,
    /// What new members see of what was before; `since_joining` by default.
    #[serde(default)]
    history: Option<HistoryWord>,
    /// A member too, listed or not.
    #[serde(default)]
    owner: Option<i64>,
    /// Members too, listed or not.
    #[serde(default)]
    admins: Vec<i64>,
}

/// What new members see of what was before.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HistoryWord {
    Full,
    SinceJoining,
}

impl From<HistoryWord> for History {
    fn from(word: HistoryWord) -> Self {
        match word {
            HistoryWord::Full => Self::Full,
            HistoryWord::SinceJoining => Self::SinceJoining,
        }
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RoleWord {
    #[default]
    Member,
    Admin,
    Owner,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Member => Self::Member,
            RoleWord::Admin => Self::Admin,
            RoleWord::Owner => Self::Owner,
        }
    }
}

/// A member: its id, or `{userId, role}`.
#[derive(Debug)]
struct Entry {
    user: i64,
    role: RoleWord,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FullEntry {
    user_id: i64,
    #[serde(default)]
    role: RoleWord,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user id, or an object with userId and role")
            }

            fn visit_i64<E: serde::de::Error>(self, user: i64) -> Result<Entry, E> {
                Ok(Entry { user, role: RoleWord::default() })
            }

            fn visit_u64<E: serde::de::Error>(self, user: u64) -> Result<Entry, E> {
                i64::try_from(user)
                    .map_err(|_| E::custom("user id is too large"))
                    .and_then(|user| self.visit_i64(user))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let FullEntry { user_id, role } =
                    FullEntry::deserialize(MapAccessDeserializer::new(map)).map_err(A::Error::custom)?;
                Ok(Entry { user: user_id, role })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Each member once, with the highest of the roles it was given.
fn members(body: &Body) -> Result<Vec<(UserId, Role)>, Problem> {
    let too_many = body.members.len() > MAX_MEMBERS || body.admins.len() > MAX_MEMBERS;
    let listed = body.members.iter().enumerate();
    let listed = listed.map(|(i, entry)| (place_of("members", Some(i)), entry.user, entry.role));
    let admins = body.admins.iter().enumerate();
    let admins = admins.map(|(i, &user)| (place_of("admins", Some(i)), user, RoleWord::Admin));
    let owner = body.owner.iter().map(|&user| (place_of("owner", None), user, RoleWord::Owner));
    let mut roles: BTreeMap<UserId, RoleWord> = BTreeMap::new();
    for (place, id, role) in listed.chain(admins).chain(owner) {
        let user = UserId::new(id).map_err(|error| Problem::invalid(format!("{}: {error}", place())))?;
        let highest = roles.entry(user).or_insert(role);
        *highest = role.max(*highest);
    }
    if roles.is_empty() || too_many || roles.len() > MAX_MEMBERS {
        return Err(Problem::invalid(format!("members must have 1-{MAX_MEMBERS} entries")));
    }
    Ok(roles.into_iter().map(|(user, role)| (user, role.into())).collect())
}

/// Says where, once it is needed.
fn place_of(field: &'static str, index: Option<usize>) -> impl Fn() -> String {
    move || index.map_or_else(|| field.to_owned(), |i| format!("{field}[{i}]"))
}

fn describe(conversation: &ConversationId, description: &Description) -> Value {
    let mut described = json!({
        "id": conversation.text(),
        "epoch": description.epoch,
        "topSeq": description.top,
        "firstAvailableSeq": description.first_available,
        "members": description.members,
        "createdAt": description.created_at,
    });
    if let (ConversationId::Group(_), Some(fields)) = (conversation, described.as_object_mut()) {
        let history = match description.history {
            History::Full => "full",
            History::SinceJoining => "since_joining",
        };
        fields.insert("history".to_owned(), history.into());
        fields.insert("memberVersion".to_owned(), description.mver.into());
    }
    described
}

pub(super) async fn create(
    State(context): Context,
    body: Arrived,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body: Body = parse(body)?;
    let group = parse_group("id", &body.id)?;
    let members = members(&body)?;
    let history = body.history.map(History::from).unwrap_or_default();
    let created = context.pipeline()?.ports().create_group(group.clone(), members, history).await?;
    match created {
        Created::New(description) => Ok((StatusCode::CREATED, Json(describe(&group, &description)))),
        Created::Same(description) => Ok((StatusCode::OK, Json(describe(&group, &description)))),
        Created::Other => {
            Err(Problem::new(StatusCode::CONFLICT, format!("id: {group} is there, with other members")))
        }
    }
}

pub(super) async fn get(State(context): Context, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let conversation = parse_conversation("id", &id)?;
    let described = context.pipeline()?.ports().store.describe(&conversation).await?;
    let description = described.ok_or_else(|| not_found("conversation"))?;
    Ok(Json(describe(&conversation, &description)))
}

pub(super) async fn delete(State(context): Context, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let group = parse_group("id", &id)?;
    if !context.pipeline()?.ports().delete_group(group).await? {
        return Err(not_found("conversation"));
    }
    Ok(Json(json!({ "id": id, "deleted": true })))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listing {
    cursor: Option<usize>,
    limit: Option<usize>,
}

pub(super) async fn of_user(
    State(context): Context,
    Path(user): Path<String>,
    query: Asked<Listing>,
) -> Result<Json<Value>, Problem> {
    let user = parse_user(&user)?;
    let query = asked(query)?;
    let limit = page_size(query.limit, DEFAULT_CONVERSATIONS, MAX_CONVERSATIONS)?;
    let offset = query.cursor.unwrap_or(0);
    let page = context.pipeline()?.ports().store.conversations(user, offset, limit).await?;
    let positions = page.positions.iter().map(|position| {
        json!({
            "conversationId": position.conversation_id,
            "epoch": position.epoch,
            "topSeq": position.seq,
            "serverMsgId": position.server_msg_id,
            "readSeq": position.read_seq,
            "unread": position.unread,
            "peerDeliveredSeq": position.peer_delivered_seq,
            "peerReadSeq": position.peer_read_seq,
        })
    });
    Ok(Json(json!({
        "userId": user.get(),
        "conversations": positions.collect::<Vec<_>>(),
        "nextCursor": page.has_more.then(|| offset.saturating_add(limit).to_string()),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Vec<(i64, Role)>, String> {
        let body: Body = serde_json::from_value(body).map_err(|error| error.to_string())?;
        let members = members(&body).map_err(|problem| format!("{problem:?}"))?;
        Ok(members.into_iter().map(|(user, role)| (user.get(), role)).collect())
    }

    #[test]
    fn each_member_has_its_highest_role() {
        let body = json!({"id": "g:a", "members": [3, 1, {"userId": 2, "role": "admin"}, 3], "owner": 4, "admins": [1, 4]});
        let expected = [(1, Role::Admin), (2, Role::Admin), (3, Role::Member), (4, Role::Owner)];
        assert_eq!(read(body).unwrap(), expected);
        assert_eq!(read(json!({"id": "g:a", "members": [{"userId": 2}]})).unwrap(), [(2, Role::Member)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!([]), "members must have 1-100000 entries"),
            (json!([1, 0]), "members[1]: user id"),
            (json!(["1"]), "a user id, or an object"),
            (json!([{"userId": 1, "colour": 2}]), "unknown field `colour`"),
            (json!([{"userId": 1, "role": "king"}]), "unknown variant `king`"),
            (json!([18_446_744_073_709_551_615_u64]), "too large"),
            (json!((1..=100_001).collect::<Vec<i64>>()), "1-100000"),
        ];
        for (members, expected) in cases {
            let error = read(json!({"id": "g:a", "members": members})).unwrap_err();
            assert!(error.contains(expected), "{error}: {expected}");
        }
        assert!(
            read(json!({"id": "g:a", "members": [1], "admins": [-1]})).unwrap_err().contains("admins[0]")
        );
    }
}
