//! Who is online.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Asked, Body, Problem, asked, parse};
use super::users::describe;
use crate::analytics::InstallId;
use crate::census::Sighting;
use crate::presence::PresenceError;
use crate::telemetry::metrics;
use crate::types::{UserId, unix_ms};

/// Most users of one question.
const MAX_USERS: usize = 1_000;
/// Most things a client says of itself, and the longest of them, bytes.
const MAX_CLIENT: usize = 32;
const MAX_WORD: usize = 256;

type Context = State<Arc<AdminContext>>;

impl From<PresenceError> for Problem {
    fn from(error: PresenceError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Heartbeat {
    #[serde(default)]
    user_id: Option<i64>,
    #[serde(default)]
    install_id: Option<String>,
    #[serde(default)]
    client: BTreeMap<String, String>,
}

/// A user without a connection is there.
pub(super) async fn heartbeat(State(context): Context, body: Body) -> Result<Json<Value>, Problem> {
    let Heartbeat { user_id, install_id, client } = parse(body)?;
    let user = user_id.map(UserId::new).transpose();
    let user = user.map_err(|error| Problem::invalid(format!("userId: {error}")))?;
    let install = install_id.map(|id| InstallId::new(&id)).transpose();
    let install = install.map_err(|error| Problem::invalid(format!("installId: {error}")))?;
    if user.is_none() && install.is_none() {
        return Err(Problem::invalid("one of userId and installId is needed"));
    }
    if client.len() > MAX_CLIENT || client.iter().any(|(k, v)| k.len() > MAX_WORD || v.len() > MAX_WORD) {
        return Err(Problem::invalid("client: at most 32 names and values of at most 256 bytes"));
    }
    let pipeline = context.present()?;
    if let Some(user) = user
        && !pipeline.heard_outside(user)
    {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "more users than can be told at once"));
    }
    metrics().presence.sighted_http.increment(1);
    let client = &client;
    context.census()?.seen(Sighting { user, install, client, address: None, at: unix_ms() });
    let window = pipeline.ports().presence_config.window;
    Ok(Json(json!({ "userId": user.map(UserId::get), "windowSeconds": window.as_secs() })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counted {
    /// Seconds.
    window: Option<String>,
}

pub(super) async fn online_count(
    State(context): Context,
    query: Asked<Counted>,
) -> Result<Json<Value>, Problem> {
    let wanted = asked(query)?;
    let ports = context.present()?.ports();
    let longest = ports.presence_config.window.as_secs();
    let window = match wanted.window.map(|text| text.parse::<u64>()) {
        None => longest,
        Some(Ok(seconds)) if (1..=longest).contains(&seconds) => seconds,
        Some(_) => {
            let text = format!("window: must be 1-{longest} seconds, the longest being presence.window");
            return Err(Problem::invalid(text));
        }
    };
    let counted = ports.presence.online_count(Duration::from_secs(window)).await?;
    Ok(Json(json!({ "count": counted.users, "windowSeconds": window, "asOf": counted.as_of })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    ids: String,
}

pub(super) async fn users(State(context): Context, query: Asked<Named>) -> Result<Json<Value>, Problem> {
    let ids = asked(query)?.ids;
    let read = |(place, id): (usize, &str)| {
        UserId::parse(id).map_err(|error| Problem::invalid(format!("ids[{place}]: {error}")))
    };
    if ids.is_empty() || ids.bytes().filter(|b| *b == b',').count() >= MAX_USERS {
        return Err(Problem::invalid("ids: must name 1-1000 users, separated by commas"));
    }
    let users = ids.split(',').enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    let ports = context.present()?.ports();
    let look = ports.presence.look(&users).await?;
    let routes = ports.routes.query(&users).await?;
    let known = |at: i64| Some(at).filter(|at| *at > 0);
    let entries = look.found.iter().zip(routes).map(|(found, route)| {
        let devices: Vec<Value> = route.devices.iter().filter(|_| found.online).map(describe).collect();
        json!({
            "userId": found.user.get(),
            "online": found.online,
            "since": known(found.since),
            "lastSeen": known(found.last_seen),
            "devices": devices,
        })
    });
    Ok(Json(json!({ "users": entries.collect::<Vec<_>>() })))
}
