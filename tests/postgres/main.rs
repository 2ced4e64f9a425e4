//! The log of events in a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;
mod outage;
mod server;
mod tables;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::common::{Gateway, Options, eventually, secs};
use crate::server::Postgres;

/// Copies into this database.
fn copying(options: Options, postgres: &Postgres) -> Options {
    options.env("TIDEGATE_ANALYTICS_POSTGRES_URL", &postgres.url())
}

/// Event `n` of a run, named so that it is told once.
fn event(n: u64) -> Value {
    json!({
        "installId": format!("install-{:04}", n % 50),
        "eventName": "opened",
        "eventTime": now(),
        "eventId": format!("event-{n}"),
        "properties": {"n": n},
    })
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Reports events; all are accepted.
async fn report(gateway: &Gateway, events: &[Value]) {
    let reply = gateway.http().post("/v1/analytics/events", &json!({ "events": events })).await;
    let told = reply.success().json();
    assert_eq!(told["accepted"], events.len(), "{told}");
}

/// Waits until so many events are in the table.
async fn are_copied(database: &Client, count: i64) {
    let read = "SELECT count(*) FROM analytics_event_log WHERE event_name = 'opened'";
    eventually(&format!("{count} events are copied"), secs(60), || async {
        let row = database.query_one(read, &[]).await.ok()?;
        (row.get::<_, i64>(0) >= count).then_some(())
    })
    .await;
}

/// How often each event is in the table: once.
async fn are_there_once(database: &Client, count: i64) {
    let read =
        "SELECT count(*), count(DISTINCT event_id) FROM analytics_event_log WHERE event_name = 'opened'";
    let row = database.query_one(read, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (count, count), "once each");
}
