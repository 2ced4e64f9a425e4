//! Who came and what was reported: events, daily users and the history of
//! online numbers, through real gateways.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod dau;
mod events;
mod history;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Client, Gateway};
use serde_json::{Value, json};
use tidegate::proto::Identify;
use tidegate::proto::envelope::Payload;

const DAY_MS: i64 = 24 * 3_600_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The day, in UTC, so many days ago.
fn day(ago: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now_ms() - ago * DAY_MS).unwrap();
    at.to_string()[..10].to_owned()
}

/// An event of an installation, with an id of its own.
fn event(install: &str, id: &str) -> Value {
    json!({"installId": install, "eventName": "app_open", "eventTime": now_ms(), "eventId": id,
        "properties": {"screen": "home"}})
}

async fn report(gateway: &Gateway, events: &[Value]) -> Value {
    let body = json!({ "events": events });
    gateway.http().patient().post("/v1/analytics/events", &body).await.success().json()
}

/// Connects and says where it is.
async fn connect_from(gateway: &Gateway, user: i64, province: &str, city: &str) -> Client {
    let mut client = Client::open(gateway, &format!("/ws?user={user}&device=phone&resume=1")).await;
    let said = [("province", province), ("city", city)];
    let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
    client.send(Payload::Identify(Identify { client: said.into(), ..Identify::default() })).await;
    client.expect_ready().await;
    client
}

/// Of today: of the days around it the one with the most, should it be
/// midnight.
async fn today(gateway: &Gateway, by: &str) -> Value {
    let path = format!("/v1/presence/dau?from={}&to={}{by}", day(1), day(-1));
    let days = gateway.http().get(&path).await.success().json();
    let days = days["days"].as_array().unwrap().clone();
    days.into_iter().max_by_key(|day| day["dau"].as_u64()).unwrap()
}
