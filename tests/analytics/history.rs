//! One sample per instant, steps without omission, and the peak.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::now_ms;

async fn points(gateway: &Gateway, from: i64, step: &str) -> Value {
    let path = format!("/v1/presence/online-history?from={from}&step={step}");
    gateway.http().get(&path).await.success().json()
}

fn sampled(history: &Value) -> Vec<Value> {
    let points = history["points"].as_array().unwrap();
    points.iter().filter(|point| point["samples"] != json!(0)).cloned().collect()
}

#[tokio::test]
async fn alone_it_counts_its_own_users() {
    let began = now_ms();
    let gateway = Gateway::start(Options::new().config("presence.sample_every = \"1s\"\n")).await;
    let _two = [Client::connect(&gateway, 1, "phone").await, Client::connect(&gateway, 2, "phone").await];
    let history = eventually("both are in a sample", secs(30), || async {
        let history = points(&gateway, began - 10_000, "1s").await;
        (history["peak"]["online"] == json!(2)).then_some(history)
    })
    .await;
    assert_eq!((&history["stepMs"], &history["points"][0]["min"]), (&json!(1_000), &Value::Null), "a gap");
    let peak = history["peak"]["ts"].as_i64().unwrap();
    assert!(peak % 1_000 == 0 && peak >= began - 1_000, "{peak}");
    let at_peak = sampled(&history).into_iter().find(|point| point["ts"] == json!(peak)).unwrap();
    assert_eq!(at_peak, json!({"ts": peak, "samples": 1, "min": 2, "avg": 2.0, "max": 2}));
    // As one step.
    let whole = points(&gateway, began - 10_000, "1h").await;
    let all: u64 = sampled(&whole).iter().map(|point| point["samples"].as_u64().unwrap()).sum();
    assert!(all >= 1 && sampled(&whole).len() <= 2);
}

#[tokio::test]
async fn of_many_gateways_one_at_a_time_takes_the_sample() {
    let redis = Redis::start().await;
    let sampling = |id: &str| Options::cluster(&redis, id).config("presence.sample_every = \"1s\"\n");
    let one = Gateway::start(sampling("gw-a")).await;
    let mut other = Gateway::start(sampling("gw-b")).await;
    // Far ahead, so that it stays online.
    let ahead = (now_ms() + 600_000).to_string();
    let _: u64 = redis.query(&["ZADD", "presence:online_users", &ahead, "77"]).await;
    let samples = async || -> usize { redis.query(&["XLEN", "presence.online"]).await };
    eventually("three samples", secs(30), || async { (samples().await >= 3).then_some(()) }).await;
    // Whoever had the turn, the other one goes on.
    other.kill();
    let before = samples().await;
    eventually("three more", secs(30), || async { (samples().await >= before + 3).then_some(()) }).await;
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", "presence.online", "-", "+"]).await;
    let instants: BTreeSet<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(instants.len(), entries.len());
    assert!(instants.iter().all(|id| id.ends_with("000-0")), "{instants:?}");
    let history = points(&one, now_ms() - 120_000, "1s").await;
    assert_eq!(history["peak"]["online"], json!(1));
}

#[tokio::test]
async fn a_wrong_question_is_refused_precisely() {
    let gateway = Gateway::start(Options::new()).await;
    let cases = [
        ("", "missing field `from`"),
        ("from=yesterday", "from: must be unix ms, or RFC 3339"),
        ("from=2026-11-21T00:00:00Z&to=2026-11-20T00:00:00Z", "from must be before to"),
        ("from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&step=90s", "a multiple of 60000 ms"),
        ("from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&step=0s", "a multiple of 60000 ms"),
        (
            "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&step=often",
            "step: must be a time with its unit",
        ),
        ("from=2026-11-01T00:00:00Z&to=2026-11-20T00:00:00Z", "27360 steps; at most 1500"),
        ("from=0&to=2026-11-20T00:00:00Z&step=1d", "at most 400 days apart"),
        ("from=-5", "from: must be unix ms"),
        ("from=1969-12-31T00:00:00Z&step=1h", "not before 1970"),
        ("from=2026-11-21T00:00:00+08:00", "2026-11-21T10:00:00%2B08:00"),
        ("from=2026-11-21T00:00Z", "from: must be unix ms, or RFC 3339"),
    ];
    for (query, said) in cases {
        let reply = gateway.http().get(&format!("/v1/presence/online-history?{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        assert!(reply.text().contains(said), "{query}: {}", reply.text());
    }
}
