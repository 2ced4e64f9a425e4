//! What is reported is kept, once, and what is wrong is named.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::common::{Gateway, Options, Redis, eventually, secs};
use crate::{event, now_ms, report};

const PATH: &str = "/v1/analytics/events";

fn told(accepted: u64, duplicates: u64) -> Value {
    json!({"accepted": accepted, "duplicates": duplicates, "refused": []})
}

#[tokio::test]
async fn a_bad_event_is_named_and_costs_itself_or_the_call() {
    let gateway = Gateway::start(Options::new()).await;
    let mut wrong = event("install-2", "b");
    wrong["eventName"] = json!("9lives");
    let mut old = event("install-3", "c");
    old["eventTime"] = json!(now_ms() - 8 * 24 * 3_600_000);
    let events = json!({"events": [event("install-1", "a"), wrong, 7, old]});
    let refused = json!([
        {"index": 1, "field": "eventName", "reason": "must be a letter and up to 63 of [A-Za-z0-9_]"},
        {"index": 2, "field": "event", "reason": "must be a JSON object"},
        {"index": 3, "field": "eventTime", "reason": "is more than 7 days ago"},
    ]);
    let strict = gateway.http().post(&format!("{PATH}?mode=strict"), &events).await;
    assert_eq!(strict.status, 400);
    let problem = strict.json();
    assert_eq!(problem["refused"], refused);
    let detail = "events[1].eventName: must be a letter and up to 63 of [A-Za-z0-9_]";
    assert_eq!(problem["detail"], json!(detail));
    // Nothing of it was kept: the good one is new.
    let partial = gateway.http().post(PATH, &events).await.success().json();
    assert_eq!(partial, json!({"accepted": 1, "duplicates": 0, "refused": refused}));
    let good = json!({"events": [event("install-1", "a"), event("install-1", "d")]});
    let strict = gateway.http().post(&format!("{PATH}?mode=strict"), &good).await.success().json();
    assert_eq!(strict, told(1, 1));
}

#[tokio::test]
async fn a_call_that_is_no_call_is_refused_precisely() {
    let gateway = Gateway::start(Options::new()).await;
    let many: Vec<Value> = (0..1_001).map(|n| event("install-1", &n.to_string())).collect();
    let long = format!(r#"{{"events": ["{}"]}}"#, "x".repeat(9_300_000));
    let deep = format!(r#"{{"events": [{}1{}]}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let cases: [(&str, &str, u16, &str); 9] = [
        ("", "", 400, "a JSON object is needed"),
        ("", "[]", 400, "a JSON object is needed"),
        ("", "{}", 400, "missing field `events`"),
        ("", r#"{"events": []}"#, 400, "events: none"),
        ("", r#"{"events": {}}"#, 400, "an array of 1-1000 events"),
        ("", r#"{"events": [1,}"#, 400, "body:"),
        ("", &json!({ "events": many }).to_string(), 400, "events: more than 1000"),
        ("?mode=lenient", r#"{"events": [1]}"#, 400, "unknown variant `lenient`"),
        ("", &long, 413, "length limit exceeded"),
    ];
    for (query, body, status, said) in cases {
        let body = Bytes::from(body.to_owned());
        let reply = gateway.http().patient().send(Method::POST, &format!("{PATH}{query}"), body).await;
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
        assert!(reply.text().contains(said), "{}", reply.text());
    }
    // Depth costs the one event.
    let reply = gateway.http().send(Method::POST, PATH, deep.into()).await.success().json();
    assert_eq!(reply["refused"][0]["index"], json!(0));
    assert_eq!(report(&gateway, &[event("install-1", "a")]).await, told(1, 0));
}

/// As large as a call can be, on both stores.
#[tokio::test]
async fn a_thousand_full_events_are_taken_at_once() {
    let redis = Redis::start().await;
    for options in [Options::new(), Options::cluster(&redis, "gw-a")] {
        let gateway = Gateway::start(options).await;
        let full = |n: usize| {
            let mut event = event("install-1", &format!("e{n}"));
            event["properties"] = json!({"a": "x".repeat(8 * 1024 - 8)});
            event
        };
        let events: Vec<Value> = (0..1_000).map(full).collect();
        assert_eq!(report(&gateway, &events).await, told(1_000, 0));
        assert_eq!(report(&gateway, &events).await, told(0, 1_000));
    }
}

#[tokio::test]
async fn what_was_accepted_survives_a_kill() {
    let mut gateway = Gateway::start(Options::new()).await;
    let events: Vec<Value> = (0..100).map(|n| event(&format!("install-{n}"), "e")).collect();
    assert_eq!(report(&gateway, &events).await, told(100, 0));
    gateway.kill();
    let gateway = gateway.restart().await;
    assert_eq!(report(&gateway, &events).await, told(0, 100));
    assert_eq!(crate::today(&gateway, "").await["dau"], json!(100));
}

/// The same call again, through another gateway, after one without an answer.
#[tokio::test]
async fn an_event_is_kept_once_whichever_gateway_it_comes_by() {
    let redis = Redis::start().await;
    let one = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let other = Gateway::start(Options::cluster(&redis, "gw-b")).await;
    let events: Vec<Value> = (0..50).map(|n| event("install-1", &format!("e{n}"))).collect();
    assert_eq!(report(&one, &events).await, told(50, 0));
    assert_eq!(report(&other, &events).await, told(0, 50));
    redis.pause();
    let more: Vec<Value> = (0..50).map(|n| event("install-2", &format!("e{n}"))).collect();
    let reply = one.http().post("/v1/analytics/events", &json!({ "events": more })).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"), "{}", reply.text());
    redis.resume();
    let answer = eventually("the store answers", secs(30), || async {
        let reply = other.http().post("/v1/analytics/events", &json!({ "events": more })).await;
        reply.status.is_success().then(|| reply.json())
    })
    .await;
    let count = |field: &str| answer[field].as_u64().unwrap();
    assert_eq!(count("accepted") + count("duplicates"), 50);
    let log: u64 = redis.query(&["XLEN", "presence.events"]).await;
    assert_eq!(log, 100);
}
