//! A person counts once a day, wherever he comes.

use serde_json::{Value, json};

use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::{DAY_MS, connect_from, day, event, now_ms, report, today};

async fn becomes(gateway: &Gateway, by: &str, dau: u64) -> Value {
    eventually(&format!("{dau} people"), secs(30), || async {
        let today = today(gateway, by).await;
        (today["dau"] == json!(dau)).then_some(today)
    })
    .await
}

#[tokio::test]
async fn a_user_counts_once_whichever_gateway_he_is_on() {
    let redis = Redis::start().await;
    let one = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let other = Gateway::start(Options::cluster(&redis, "gw-b")).await;
    let mut clients = Vec::new();
    for gateway in [&one, &other] {
        clients.push(connect_from(gateway, 1, "Guangdong", "Shenzhen").await);
        clients.push(connect_from(gateway, 2, "Guangdong", "Guangzhou").await);
    }
    clients.push(connect_from(&other, 3, "Zhejiang", "Hangzhou").await);
    clients.push(Client::connect(&one, 4, "phone").await);
    // An installation that says who uses it is that user.
    let mut signed_in = event("install-1", "a");
    signed_in["userId"] = json!(4);
    let mut nobody = event("install-2", "b");
    nobody["client"] = json!({"province": "Zhejiang", "city": "Ningbo"});
    report(&one, &[signed_in, nobody]).await;
    let by_province = becomes(&one, "&by=province", 5).await;
    let expected = json!([{"province": "Guangdong", "dau": 2}, {"province": "Zhejiang", "dau": 2}]);
    assert_eq!((&by_province["by"], &by_province["error"]), (&expected, &json!(0.0081)));
    let by_city = becomes(&other, "&by=city", 5).await;
    assert_eq!(by_city["by"].as_array().unwrap().len(), 4);
    assert!(by_city["by"].as_array().unwrap().contains(&json!(
        {"province": "Guangdong", "city": "Shenzhen", "dau": 1}
    )));
}

#[tokio::test]
async fn numbers_are_exact_where_they_are_asked_to_be() {
    let redis = Redis::start().await;
    let exact = Options::cluster(&redis, "gw-a").config("presence.dau = \"exact\"\n");
    for options in [exact, Options::new()] {
        let gateway = Gateway::start(options).await;
        let events: Vec<Value> = (0..900).map(|n| event(&format!("install-{n}"), "e")).collect();
        report(&gateway, &events).await;
        let today = today(&gateway, "").await;
        assert_eq!((&today["dau"], today.get("error")), (&json!(900), None));
    }
}

#[tokio::test]
async fn who_says_nothing_is_where_his_address_is() {
    let places = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/analytics/places.mmdb");
    let gateway =
        Gateway::start(Options::new().config(format!("analytics.geo_database = \"{places}\"\n"))).await;
    let _silent = Client::connect(&gateway, 1, "phone").await;
    let _other = connect_from(&gateway, 2, "Zhejiang", "Hangzhou").await;
    let by = becomes(&gateway, "&by=city", 2).await["by"].clone();
    let expected = json!([
        {"province": "Guangdong", "city": "Shenzhen", "dau": 1},
        {"province": "Zhejiang", "city": "Hangzhou", "dau": 1},
    ]);
    assert_eq!(by, expected);
}

#[tokio::test]
async fn a_past_day_is_counted_anew_by_its_version() {
    let redis = Redis::start().await;
    for options in [Options::new(), Options::cluster(&redis, "gw-a")] {
        let gateway = Gateway::start(options).await;
        let past = |n: i64, ago: i64| {
            let mut event = event(&format!("install-{n}"), &format!("e{ago}"));
            event["eventTime"] = json!(now_ms() - ago * DAY_MS);
            event
        };
        let events: Vec<Value> = (0..20).map(|n| past(n, 2)).chain((0..5).map(|n| past(n, 3))).collect();
        report(&gateway, &events).await;
        let days = gateway.http().get(&format!("/v1/presence/dau?from={}&to={}", day(3), day(2))).await;
        let days = days.success().json();
        assert_eq!(days["timeZone"], json!("UTC"));
        let told: Vec<_> =
            days["days"].as_array().unwrap().iter().map(|day| day["dau"].as_u64().unwrap()).collect();
        assert_eq!(told, [5, 20]);
        let path = format!("/v1/presence/dau/{}/recalculate", day(2));
        let anew = gateway.http().post(&path, &json!({"version": 0})).await.success().json();
        assert_eq!((&anew["dau"], &anew["version"]), (&json!(20), &json!(1)));
        let stale = gateway.http().post(&path, &json!({"version": 0})).await;
        assert_eq!((stale.status.as_u16(), &stale.json()["version"]), (409, &json!(1)), "{}", stale.text());
        let again = gateway.http().post(&path, &json!({})).await.success().json();
        assert_eq!((&again["dau"], &again["version"]), (&json!(20), &json!(2)));
        let early =
            gateway.http().post(&format!("/v1/presence/dau/{}/recalculate", day(-1)), &json!({})).await;
        assert_eq!(early.status, 400, "{}", early.text());
    }
}

#[tokio::test]
async fn a_wrong_question_is_refused_precisely() {
    let gateway = Gateway::start(Options::new()).await;
    let cases = [
        ("from=2026-11-31", "from: a day is written YYYY-MM-DD"),
        ("from=2026-11-21&to=2026-11-01", "from: 2026-11-21 is after to, 2026-11-01"),
        ("from=2020-01-01&to=2026-11-01", "days; at most 400"),
        ("from=2026-01-01&to=2026-11-01&by=city", "305 days; at most 31 with by"),
        ("by=street", "unknown variant `street`"),
        ("since=1", "unknown field `since`"),
    ];
    for (query, said) in cases {
        let reply = gateway.http().get(&format!("/v1/presence/dau?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(said), "{query}: {}", reply.text());
    }
    let reply = gateway.http().post("/v1/presence/dau/today/recalculate", &json!({})).await;
    assert_eq!(reply.status, 400);
}

/// Whoever came a moment before is in the log of the process after it.
#[tokio::test]
async fn nobody_is_forgotten_in_a_hot_restart() {
    let redis = Redis::start().await;
    for options in [Options::new(), Options::cluster(&redis, "gw-a")] {
        let mut gateway = Gateway::start(options).await;
        let mut clients = Vec::new();
        for user in 1..=20 {
            clients.push(connect_from(&gateway, user, "Guangdong", "Shenzhen").await);
        }
        assert_eq!(gateway.upgrade().await["moved"], json!(20));
        assert_eq!(today(&gateway, "").await["dau"], json!(20));
        for client in &mut clients {
            client.beat().await;
        }
        // Who leaves the process after it was seen by the one before.
        clients.clear();
        eventually("all are gone", secs(30), || async {
            let status = gateway.http().get("/v1/status").await.success().json();
            (status["connections"] == json!(0)).then_some(())
        })
        .await;
        let _last = Client::connect(&gateway, 21, "phone").await;
        assert_eq!(becomes(&gateway, "&by=province", 21).await["by"][0]["dau"], json!(20));
    }
    let log: u64 = redis.query(&["XLEN", "presence.events"]).await;
    assert_eq!(log, 21);
}

/// Those who came while Redis was away are counted when it is back.
#[tokio::test]
async fn an_outage_of_redis_costs_nobody_his_day() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let _early = Client::connect(&gateway, 1, "phone").await;
    redis.pause();
    let mut late = Client::open(&gateway, "/ws?user=2&device=phone").await;
    late.expect_ready().await;
    redis.resume();
    eventually("the store answers", secs(30), || async {
        (gateway.http().try_status("/v1/presence/dau").await == Some(200)).then_some(())
    })
    .await;
    becomes(&gateway, "", 2).await;
}
