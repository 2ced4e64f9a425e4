//! Who came, and what was reported.

use serde_json::{Value, json};

use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::scrape::{Metrics, Series};

pub(crate) const EVENTS: &[Series] = &[
    "tidegate_analytics_events_total{result=accepted}",
    "tidegate_analytics_events_total{result=duplicate}",
    "tidegate_analytics_events_refused_total{reason=event}",
    "tidegate_analytics_events_refused_total{reason=install_id}",
    "tidegate_analytics_events_refused_total{reason=event_name}",
    "tidegate_analytics_events_refused_total{reason=event_time}",
    "tidegate_analytics_events_refused_total{reason=properties}",
    "tidegate_analytics_events_refused_total{reason=event_id}",
    "tidegate_analytics_events_refused_total{reason=user_id}",
    "tidegate_analytics_events_refused_total{reason=client}",
    "tidegate_analytics_events_refused_total{reason=strict}",
];
pub(crate) const TIMED: &[Series] = &[
    "tidegate_presence_samples_total",
    "tidegate_daily_recorded_total",
    "tidegate_daily_flush_duration_seconds_count",
    "tidegate_analytics_trimmed_total",
    "tidegate_daily_dropped_total{reason=places_full}",
];
const DAILY: Series = "tidegate_daily_users";
const LAG: Series = "tidegate_analytics_sink_lag_seconds{sink=store}";
pub(crate) const GAUGES: &[Series] = &[DAILY, LAG];
pub(crate) const AWAY: &[Series] = &[
    "tidegate_analytics_events_refused_total{reason=unavailable}",
    "tidegate_presence_samples_missed_total{reason=unavailable}",
];
pub(crate) const LATE: &[Series] = &["tidegate_presence_samples_missed_total{reason=refused}"];
pub(crate) const BROKEN: &[Series] = &["tidegate_daily_dropped_total{reason=broken}"];

const PATH: &str = "/v1/analytics/events";

fn event(install: &str) -> Value {
    let now = jiff::Timestamp::now().as_millisecond();
    json!({"installId": install, "eventName": "open", "eventTime": now})
}

fn with(field: &str, value: Value) -> Value {
    let mut event = event("install-1");
    event[field] = value;
    event
}

#[tokio::test]
async fn each_fault_of_an_event_is_counted() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let named = with("eventId", json!("a"));
    let events = [
        named.clone(),
        named,
        json!(1),
        with("installId", json!("x")),
        with("eventName", json!("")),
        with("eventTime", json!(1)),
        with("properties", json!([])),
        with("eventId", json!("")),
        with("userId", json!(0)),
        with("client", json!(1)),
    ];
    let body = json!({ "events": events });
    gateway.http().post(PATH, &body).await.success();
    assert_eq!(gateway.http().post(&format!("{PATH}?mode=strict"), &body).await.status, 400);
    metrics.moved(EVENTS).await;
    assert_eq!(metrics.grown("tidegate_analytics_events_refused_total{reason=strict}").await, 2.0);
}

#[tokio::test]
async fn people_samples_and_what_is_removed_are_counted() {
    let config = "presence.sample_every = \"1s\"\nanalytics.log_count = 1000\n";
    let gateway = Gateway::start(Options::new().config(config)).await;
    let metrics = Metrics::of(&gateway).await;
    let _phone = Client::connect(&gateway, 42, "phone").await;
    for part in 0..11 {
        // More cities than are told apart on one day.
        let invented = |n: usize| {
            let mut event = event("install-1");
            event["client"] = json!({"city": format!("city {part} {n}")});
            event
        };
        let events: Vec<Value> = (0..1_000).map(invented).collect();
        gateway.http().patient().post(PATH, &json!({ "events": events })).await.success();
    }
    metrics.moved_within(TIMED, secs(60)).await;
    metrics.becomes_within(DAILY, 2.0, secs(60)).await;
}

#[tokio::test]
async fn a_store_that_is_away_shows() {
    let redis = Redis::start().await;
    let config = "presence.sample_every = \"1s\"\n";
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").config(config)).await;
    let metrics = Metrics::of(&gateway).await;
    redis.pause();
    let mut phone = Client::open(&gateway, "/ws?user=42&device=phone").await;
    phone.expect_ready().await;
    let body = json!({"events": [event("install-1")]});
    assert_eq!(gateway.http().post(PATH, &body).await.status, 503);
    metrics.moved_within(AWAY, secs(60)).await;
    eventually("somebody waits", secs(60), || async { (metrics.now().await.get(LAG) > 0.0).then_some(()) })
        .await;
    redis.resume();
    metrics.becomes_within(LAG, 0.0, secs(60)).await;
}

#[tokio::test]
async fn a_sample_that_comes_after_a_later_one_is_counted() {
    let redis = Redis::start().await;
    let ahead = jiff::Timestamp::now().as_millisecond() + 3_600_000;
    let _: String = redis.query(&["XADD", "presence.online", &format!("{ahead}-0"), "n", "1"]).await;
    let config = "presence.sample_every = \"1s\"\n";
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a").config(config)).await;
    Metrics::of(&gateway).await.moved_within(LATE, secs(60)).await;
}

#[tokio::test]
async fn a_log_that_is_none_costs_people_and_is_counted() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let metrics = Metrics::of(&gateway).await;
    let _: String = redis.query(&["SET", "presence.events", "no stream"]).await;
    let _phone = Client::connect(&gateway, 42, "phone").await;
    metrics.moved_within(BROKEN, secs(60)).await;
    let body = json!({"events": [event("install-1")]});
    assert_eq!(gateway.http().post(PATH, &body).await.status, 500);
}
