//! Probes, metrics and the status.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::AdminContext;
use crate::redis::Client;
use crate::telemetry::metrics as handles;
use crate::types::Phase;
use crate::wire::pb::Probe;
use crate::wire::pb::bus_item::Item;

pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// Within this the delivery path must prove itself.
const PROBE: Duration = Duration::from_millis(1_500);

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Ready = accepting, Redis answers and confirms the configured level, and an item published to the own channel
/// comes back.
pub(super) async fn readyz(State(context): State<Arc<AdminContext>>) -> Response {
    let phase = *context.phase.borrow();
    let delivery = match (phase, context.pipeline.get()) {
        (Phase::Running, Some(_)) => probe(&context).await,
        // What keeps it from running, if that is Redis.
        _ => Err(trouble(&context).unwrap_or_else(|| "not running".to_owned())),
    };
    let level = context.pipeline.get().map(|pipeline| pipeline.ports().store.level());
    let body = json!({
        "ready": delivery.is_ok(),
        "phase": phase.as_str(),
        "redis": context.redis_state(),
        "delivery": delivery.as_ref().err().map_or("ok", String::as_str),
        "ackLevel": level,
    });
    let status = if delivery.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

fn trouble(context: &AdminContext) -> Option<String> {
    context.redis.as_ref().and_then(Client::trouble)
}

async fn probe(context: &AdminContext) -> Result<(), String> {
    let Some(pipeline) = context.pipeline.get() else { return Err("not running".to_owned()) };
    if let Some(redis) = &context.redis {
        let ping = timeout(PROBE, redis.command::<String>(redis::cmd("PING"))).await;
        if let Some(why) = redis.trouble() {
            return Err(why);
        }
        if !matches!(ping, Ok(Ok(_))) {
            return Err("redis does not answer".to_owned());
        }
        if !context.leased.load(Ordering::Relaxed) {
            return Err("the lease is not held".to_owned());
        }
    }
    let (nonce, arrival) = context.inbox.expect_probe();
    pipeline.ports().publish(&context.own, Item::Probe(Probe { nonce }));
    match timeout(PROBE, arrival).await {
        Ok(Ok(())) => Ok(()),
        _ => Err("nothing comes back through the own channel".to_owned()),
    }
}

pub(super) async fn metrics(State(context): State<Arc<AdminContext>>) -> Response {
    if let Some(pipeline) = context.pipeline.get() {
        let users = u32::try_from(pipeline.ports().hub.users()).unwrap_or(u32::MAX);
        handles().users.set(users);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], context.recorder.render()).into_response()
}

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn status(State(context): State<Arc<AdminContext>>) -> Json<Value> {
    let ports = context.pipeline.get().map(|pipeline| pipeline.ports());
    Json(json!({
        "gatewayId": context.own.id.as_str(),
        "epoch": context.own.epoch.0,
        "phase": context.phase.borrow().as_str(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "build": env!("TIDEGATE_COMMIT"),
        "startedAt": context.started_at,
        "uptimeSeconds": context.started.elapsed().as_secs(),
        "listen": context.listen.to_string(),
        "admin": context.admin.to_string(),
        "connections": ports.map_or(0, |ports| ports.hub.connections()),
        "users": ports.map_or(0, |ports| ports.hub.users()),
        "onlineUsers": ports.map_or(Some(0), |ports| ports.pulse.online()),
        "redis": context.redis_state(),
        "ackLevel": ports.map(|ports| ports.store.level()),
    }))
}
