//! The HTTP interface for operators and backends.
//!
//! | route | what |
//! |---|---|
//! | `GET /livez` | the process answers |
//! | `GET /readyz` | the delivery path works: Redis answers and a message comes back through the own channel |
//! | `GET /metrics` | Prometheus text |
//! | `GET /openapi.json` | this interface, for programs |
//! | `GET /v1/status` | this gateway |
//! | `GET /v1/users/{user}/route` | where a user is |
//! | `GET /v1/users/{user}/connections` | a user's connections, in detail where they are here |
//! | `POST /v1/users/{user}/kick` | devices out |
//! | `GET /v1/users/{user}/conversations` | where a user stands in each |
//! | `POST /v1/conversations` | a new group |
//! | `GET`, `DELETE /v1/conversations/{id}` | look at one, end it |
//! | `GET /v1/conversations/{id}/members` | who is in a group |
//! | `PUT`, `DELETE /v1/conversations/{id}/members/{user}` | add or change a member, remove it |
//! | `GET /v1/conversations/{id}/blacklist` | who is kept out |
//! | `PUT`, `DELETE /v1/conversations/{id}/blacklist/{user}` | keep out, let in again |
//! | `POST /v1/presence/heartbeat` | a user without a connection is there |
//! | `GET /v1/presence/online-count` | how many are online |
//! | `GET /v1/presence/users` | who of these is online, since when, with what |
//! | `GET /v1/history` | the messages of a conversation |
//! | `POST /v1/push` | an ephemeral payload to users, a conversation, or all |
//! | `POST /v1/analytics/events` | events that applications report |
//! | `GET /v1/presence/dau` | how many came, by day |
//! | `POST /v1/presence/dau/{day}/recalculate` | a past day counted anew |
//! | `GET /v1/presence/online-history` | how many were online |
//! | `POST /v1/upgrade` | a hot restart |
//! | `POST /v1/drain` | clients go elsewhere, then the process ends |
//! | `POST /v1/messages` | a message on behalf of a user or the system |
//!
//! JSON in camelCase; errors are RFC 9457 problem details. With an API key
//! configured every call but the two probes must carry it.
//!
//! Called by `gateway`, which serves it from the first moment: before the
//! gateway is ready the verbs answer 503.

mod analytics;
mod conversations;
mod counts;
mod health;
mod history;
mod key;
mod members;
mod messages;
mod orders;
mod presence;
mod problem;
mod push;
mod users;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use tokio::sync::{RwLock, watch};

use problem::Problem;

use crate::census::Census;
use crate::config::Secret;
use crate::handover::Orders;
use crate::pipeline::{Inbox, Pipeline};
use crate::redis::{Client, Link};
use crate::telemetry::Recorder;
use crate::types::{GatewayRef, Phase};

/// What the handlers see.
#[derive(Debug)]
pub(crate) struct AdminContext {
    /// This gateway.
    pub own: GatewayRef,
    /// Its phase.
    pub phase: watch::Receiver<Phase>,
    /// The verbs, once the gateway has its lease.
    pub pipeline: OnceLock<Arc<Pipeline>>,
    /// Who came, as soon as there are verbs, unless presence is off.
    pub census: OnceLock<Arc<Census>>,
    /// Where probes come back.
    pub inbox: Arc<Inbox>,
    /// Redis, if there is one.
    pub redis: Option<Client>,
    /// Renders the metrics.
    pub recorder: Recorder,
    /// The key calls must carry.
    pub api_key: Option<Secret>,
    /// Since when the process runs.
    pub started: Instant,
    /// Unix ms of the start.
    pub started_at: i64,
    /// The WebSocket listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Whether the lease is known to be held.
    pub(crate) leased: Arc<AtomicBool>,
    /// Where orders for the process go.
    pub(crate) orders: Orders,
    /// Held by every call that may change something; whoever holds it alone
    /// has the process to himself. `true` = another process has taken over.
    pub(crate) quiet: RwLock<bool>,
}

impl AdminContext {
    /// The verbs, or 503 while the gateway is not ready.
    fn pipeline(&self) -> Result<&Arc<Pipeline>, Problem> {
        self.pipeline.get().ok_or_else(|| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the gateway is starting: it does not hold its lease yet",
            )
        })
    }

    /// The verbs, of a gateway that knows who is online.
    fn present(&self) -> Result<&Arc<Pipeline>, Problem> {
        let off = || Problem::new(StatusCode::CONFLICT, "presence is off: presence.enabled = false");
        self.pipeline().and_then(|pipeline| {
            if pipeline.ports().presence_config.enabled { Ok(pipeline) } else { Err(off()) }
        })
    }

    /// Who came, or 503 while the gateway is not ready.
    fn census(&self) -> Result<&Arc<Census>, Problem> {
        self.present()?;
        self.census
            .get()
            .ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting"))
    }

    /// The state of Redis, in a word.
    fn redis_state(&self) -> &'static str {
        match &self.redis {
            None => "none",
            Some(client) if *client.link().borrow() == Link::Down => "down",
            Some(_) => "up",
        }
    }
}

/// The routes.
pub(crate) fn router(context: Arc<AdminContext>) -> Router {
    let roomiest = DefaultBodyLimit::max(analytics::MAX_BODY);
    let roomy = DefaultBodyLimit::max(conversations::MAX_BODY);
    Router::new()
        .route("/v1/users/{user}/route", get(users::route))
        .route("/v1/users/{user}/connections", get(users::connections))
        .route("/v1/users/{user}/kick", post(users::kick))
        .route("/v1/users/{user}/conversations", get(conversations::of_user))
        .route("/v1/conversations", post(conversations::create).layer(roomy))
        .route("/v1/conversations/{id}", get(conversations::get))
        .route("/v1/conversations/{id}", delete(conversations::delete))
        .route("/v1/conversations/{id}/members", get(members::list))
        .route("/v1/conversations/{id}/members/{user}", put(members::put))
        .route("/v1/conversations/{id}/members/{user}", delete(members::remove))
        .route("/v1/conversations/{id}/blacklist", get(members::blacklist))
        .route("/v1/conversations/{id}/blacklist/{user}", put(members::block))
        .route("/v1/conversations/{id}/blacklist/{user}", delete(members::unblock))
        .route("/v1/presence/heartbeat", post(presence::heartbeat))
        .route("/v1/presence/online-count", get(presence::online_count))
        .route("/v1/presence/users", get(presence::users))
        .route("/v1/history", get(history::history))
        .route("/v1/analytics/events", post(analytics::events).layer(roomiest))
        .route("/v1/presence/dau", get(counts::dau))
        .route("/v1/presence/dau/{day}/recalculate", post(counts::recalculate))
        .route("/v1/presence/online-history", get(counts::online_history))
        .route("/v1/push", post(push::push))
        .route("/v1/messages", post(messages::send))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&context), orders::wait_if_quiet))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(health::openapi))
        .route("/v1/status", get(health::status))
        .route("/v1/upgrade", post(orders::upgrade))
        .route("/v1/drain", post(orders::drain))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&context), key::require))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such path; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method; see /openapi.json",
            )
        })
        .with_state(context)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_openapi_document_lists_every_route() {
        let document: serde_json::Value = serde_json::from_str(super::health::OPENAPI).unwrap();
        let source = include_str!("mod.rs");
        let routes: Vec<(&str, &str)> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once("\", "))
            .map(|(path, method)| (path, &method[..method.find('(').unwrap()]))
            .collect();
        assert_eq!(routes.len(), 30);
        for (path, method) in routes {
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
    }
}
