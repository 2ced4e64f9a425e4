//! Endings by reason, and credentials refused by cause.

use serde_json::json;

use tidegate::proto::Identify;
use tidegate::proto::envelope::Payload;

use crate::common::raw::{self, BINARY, CONTINUATION, FIN, Raw, TEXT};
use crate::common::token::{SECRET, jwt_options, now, sign};
use crate::common::{Client, Gateway, Options, Redis, secs};
use crate::scrape::{Metrics, Series};

pub(crate) const BY_CLIENTS: &[Series] = &[
    "tidegate_connections_closed_total{reason=peer_closed}",
    "tidegate_connections_closed_total{reason=peer_gone}",
    "tidegate_connections_closed_total{reason=protocol_error}",
    "tidegate_connections_closed_total{reason=not_binary}",
    "tidegate_connections_closed_total{reason=invalid_payload}",
    "tidegate_connections_closed_total{reason=policy}",
    "tidegate_connections_closed_total{reason=too_large}",
    "tidegate_connections_closed_total{reason=replaced}",
    "tidegate_connections_closed_total{reason=rate_limited}",
];
pub(crate) const BY_TIME: &[Series] = &[
    "tidegate_connections_closed_total{reason=heartbeat_timeout}",
    "tidegate_connections_closed_total{reason=token_expired}",
    "tidegate_connections_closed_total{reason=unauthenticated}",
];
pub(crate) const BY_OPERATORS: &[Series] = &[
    "tidegate_connections_closed_total{reason=kicked}",
    "tidegate_connections_closed_total{reason=shutdown}",
];
pub(crate) const AUTH_FAILURES: &[Series] = &[
    "tidegate_auth_failures_total{reason=signature}",
    "tidegate_auth_failures_total{reason=expired}",
    "tidegate_auth_failures_total{reason=malformed}",
];

#[tokio::test]
async fn what_clients_do_to_end_it() {
    let options = Options::new().env("TIDEGATE_LIMITS_FRAMES_PER_SECOND", "100");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    Client::connect(&gateway, 1, "phone").await.close().await;
    drop(Raw::upgraded(&gateway, 2).await);
    let fragments = [raw::frame(BINARY, b"x"), raw::frame(CONTINUATION, b"x").repeat(64)].concat();
    let broken = [
        vec![FIN | BINARY, 1, 0],
        raw::frame(FIN | TEXT, b"{}"),
        raw::frame(FIN | BINARY, &[0xff, 0xff]),
        fragments,
        raw::frame(FIN | BINARY, &vec![0; 131_073]),
        raw::frame(FIN | BINARY, &vec![0; 1_000]),
    ];
    for (user, bytes) in (10..).zip(broken) {
        let mut socket = Raw::upgraded(&gateway, user).await;
        socket.write(&bytes).await;
        socket.closed().await;
    }
    let mut old = Client::connect(&gateway, 3, "phone").await;
    let _new = Client::connect(&gateway, 3, "phone").await;
    old.expect_close().await;
    metrics.moved(BY_CLIENTS).await;
    for series in BY_CLIENTS {
        assert_eq!(metrics.grown(series).await, 1.0, "{series}");
    }
}

#[tokio::test]
async fn what_time_ends() {
    let options = jwt_options().env("TIDEGATE_HEARTBEAT_INTERVAL", "1s").env("TIDEGATE_AUTH_LEEWAY", "0s");
    let gateway = Gateway::start(options).await;
    let metrics = Metrics::of(&gateway).await;
    let open = async |user: u32, life: u64| {
        let claims = json!({"sub": user.to_string(), "exp": now() + life});
        let mut client = Client::open(&gateway, &format!("/ws?access_token={}", sign(&claims, SECRET))).await;
        client.expect_ready().await;
        client
    };
    let _silent = open(1, 3600).await;
    let _expiring = open(2, 2).await;
    let mut nobody = Client::open(&gateway, "/ws").await;
    nobody.send(Payload::Identify(Identify { token: "x".to_owned(), ..Identify::default() })).await;
    metrics.moved_within(BY_TIME, secs(15)).await;
}

#[tokio::test]
async fn refused_credentials_are_counted_by_cause() {
    let gateway = Gateway::start(jwt_options()).await;
    let metrics = Metrics::of(&gateway).await;
    let forged = sign(&json!({"sub": "1", "exp": now() + 60}), "another-secret-of-more-than-32-bytes");
    let old = sign(&json!({"sub": "1", "exp": now() - 3600}), SECRET);
    for token in [forged.as_str(), old.as_str(), "nonsense"] {
        let refused = Client::try_open(&gateway, &format!("/ws?access_token={token}"), &[]).await;
        assert_eq!(refused.err().as_deref(), Some("401"));
    }
    metrics.moved(AUTH_FAILURES).await;
}

#[tokio::test]
async fn what_operators_end() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut kicked = Client::connect(&gateway, 1, "phone").await;
    let mut other = Client::connect(&gateway, 2, "phone").await;
    gateway.http().post("/v1/users/1/kick", &json!({})).await.success();
    kicked.expect_close().await;
    // What it owes Redis keeps the process until it has been looked at.
    redis.pause();
    gateway.terminate();
    assert_eq!(other.expect_close().await, Some(1001));
    metrics.moved(BY_OPERATORS).await;
    redis.resume();
}
