//! What an operator asks of the process itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::AdminContext;
use super::problem::{Body as Arrived, Problem, parse_or_default};
use crate::handover::{DrainOrder, Order, Report, UpgradeOrder};
use crate::types::Phase;

/// Longest time over which clients may be asked to leave.
const LONGEST_DRAIN_MS: u64 = 600_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Upgrade {
    /// The program; without it the one this process was started from.
    binary: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Drain {
    /// Time over which clients are asked to leave.
    deadline_ms: Option<u64>,
}

/// Hands everything to another process; answers when that is done.
pub(super) async fn upgrade(
    State(context): State<Arc<AdminContext>>,
    body: Arrived,
) -> Result<Json<Report>, Problem> {
    let Upgrade { binary } = parse_or_default(body)?;
    if binary.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err(Problem::invalid("binary: an absolute path is needed"));
    }
    let (done, outcome) = oneshot::channel();
    give(&context, Order::Upgrade(UpgradeOrder { binary, done }))?;
    match outcome.await {
        Ok(Ok(report)) => Ok(Json(report)),
        Ok(Err(why)) => Err(Problem::new(StatusCode::CONFLICT, why)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the upgrade was broken off")),
    }
}

/// Sends everybody away; answers when that has begun.
pub(super) async fn drain(
    State(context): State<Arc<AdminContext>>,
    body: Arrived,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Drain { deadline_ms } = parse_or_default(body)?;
    if deadline_ms.is_some_and(|ms| !(1..=LONGEST_DRAIN_MS).contains(&ms)) {
        return Err(Problem::invalid(format!("deadlineMs must be 1-{LONGEST_DRAIN_MS}")));
    }
    let (begun, beginning) = oneshot::channel();
    let deadline = deadline_ms.map(Duration::from_millis);
    give(&context, Order::Drain(DrainOrder { deadline, begun }))?;
    let connections = context.pipeline.get().map_or(0, |pipeline| pipeline.ports().hub.connections());
    match beginning.await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(json!({ "draining": connections })))),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the drain was broken off")),
    }
}

fn give(context: &AdminContext, order: Order) -> Result<(), Problem> {
    if *context.phase.borrow() != Phase::Running {
        return Err(Problem::new(StatusCode::CONFLICT, "the gateway is not running: it starts, or ends"));
    }
    if context.orders.give(order) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::CONFLICT, "an upgrade or a drain is under way already"))
}

/// Lets a call through that may change something, unless everything stands
/// still: then it waits, and is turned away where another process has taken
/// over.
pub(super) async fn wait_if_quiet(
    State(context): State<Arc<AdminContext>>,
    request: Request,
    next: Next,
) -> Response {
    let moved = context.quiet.read().await;
    if *moved {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "another process has taken over; ask again")
            .into_response();
    }
    next.run(request).await
}
