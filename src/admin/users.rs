//! Where users are, and out with them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Body, Problem, parse, parse_user};
use crate::pipeline::{KickRequest, Ports};
use crate::route::{DeviceRoute, Route};
use crate::types::{DeviceId, UserId, monotonic_ms};

type Context = State<Arc<AdminContext>>;

async fn find(ports: &Ports, user: UserId) -> Result<Route, Problem> {
    Ok(ports.routes.query(&[user]).await?.into_iter().next().unwrap_or_default())
}

pub(super) fn describe(device: &DeviceRoute) -> Value {
    json!({
        "deviceId": device.device.as_str(),
        "gatewayId": device.seat.gateway.id.as_str(),
        "epoch": device.seat.gateway.epoch.0,
        "connId": device.seat.conn.0,
        "boundAt": device.bound / 1000,
    })
}

pub(super) async fn route(State(context): Context, Path(user): Path<String>) -> Result<Json<Value>, Problem> {
    let user = parse_user(&user)?;
    let route = find(context.pipeline()?.ports(), user).await?;
    Ok(Json(json!({
        "userId": user.get(),
        "gatewayId": route.devices.first().map(|device| device.seat.gateway.id.as_str()),
        "devices": route.devices.iter().map(describe).collect::<Vec<_>>(),
    })))
}

pub(super) async fn connections(
    State(context): Context,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    let user = parse_user(&user)?;
    let ports = context.pipeline()?.ports();
    let route = find(ports, user).await?;
    let now = monotonic_ms();
    let detail = |device: &DeviceRoute| {
        let mut described = describe(device);
        let here = device.seat.gateway == ports.own;
        if let Some(peer) = ports.hub.peer(user, &device.device).filter(|_| here) {
            let (frames, bytes) = peer.outbox.backlog();
            let local = json!({
                "idleMs": now.saturating_sub(peer.last_seen()),
                "queuedFrames": frames,
                "queuedBytes": bytes,
                "sendsInFlight": peer.in_flight(),
            });
            if let (Some(described), Value::Object(local)) = (described.as_object_mut(), local) {
                described.extend(local);
            }
        }
        described
    };
    let connections: Vec<_> = route.devices.iter().map(detail).collect();
    Ok(Json(json!({ "userId": user.get(), "connections": connections })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct KickBody {
    /// One device; without it all.
    device_id: Option<String>,
    /// What the client is told.
    may_reconnect: bool,
}

pub(super) async fn kick(
    State(context): Context,
    Path(user): Path<String>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let user = parse_user(&user)?;
    let body: KickBody =
        if body.as_ref().is_ok_and(Bytes::is_empty) { KickBody::default() } else { parse(body)? };
    let device = body
        .device_id
        .map(|id| DeviceId::new(&id))
        .transpose()
        .map_err(|error| Problem::invalid(format!("deviceId: {error}")))?;
    let request = KickRequest { user, device, may_reconnect: body.may_reconnect };
    let kicked = context.pipeline()?.ports().kick(&request).await?;
    Ok(Json(json!({ "userId": user.get(), "kicked": kicked })))
}
