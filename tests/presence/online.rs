//! Who is online, by heartbeats and farewells.

use std::time::Instant;

use serde_json::json;

use super::common::{Client, Gateway, Options, Pair, throughout};
use super::*;

#[tokio::test]
async fn users_of_all_gateways_are_online_and_counted() {
    let pair = Pair::start_with(|options| options.config(GRACE)).await;
    let _phone = Client::connect(&pair.a, 42, "phone").await;
    let _laptop = Client::connect(&pair.b, 42, "laptop").await;
    let _other = Client::connect(&pair.b, 43, "phone").await;
    let beat = json!({ "userId": 44, "client": { "platform": "ios" } });
    let answer = pair.a.http().post("/v1/presence/heartbeat", &beat).await.success().json();
    assert_eq!(answer, json!({ "userId": 44, "windowSeconds": 180 }));
    let before = unix_ms();
    for gateway in [&pair.a, &pair.b] {
        count_becomes(gateway, 3).await;
    }
    let count = pair.a.http().get("/v1/presence/online-count?window=60").await.success().json();
    assert_eq!((&count["count"], &count["windowSeconds"]), (&json!(3), &json!(60)));
    assert!(count["asOf"].as_i64().unwrap() >= before);

    let found = users(&pair.a, "43,99,42,44,42").await;
    let ids: Vec<_> = found.iter().map(|entry| entry["userId"].as_i64().unwrap()).collect();
    assert_eq!(ids, [43, 99, 42, 44, 42]);
    assert_eq!(
        found[1],
        json!({ "userId": 99, "online": false, "since": null, "lastSeen": null, "devices": [] })
    );
    for entry in [&found[0], &found[2], &found[3]] {
        assert_eq!(entry["online"], true);
        let (since, seen) = (entry["since"].as_i64().unwrap(), entry["lastSeen"].as_i64().unwrap());
        assert!(since > before - 60_000 && seen > before - 60_000 && seen <= unix_ms(), "{entry}");
    }
    let mut devices: Vec<_> =
        found[2]["devices"].as_array().unwrap().iter().map(|d| d["deviceId"].as_str().unwrap()).collect();
    devices.sort_unstable();
    assert_eq!((devices, found[3]["devices"].as_array().unwrap().len()), (vec!["laptop", "phone"], 0));

    let mut set: Vec<String> = pair.redis.query(&["ZRANGE", "presence:online_users", "0", "-1"]).await;
    set.sort();
    assert_eq!(set, ["42", "43", "44"]);
    eventually("the status says so", LONG, || async {
        let status = pair.a.http().get("/v1/status").await.success().json();
        assert_eq!(status["users"], 1);
        (status["onlineUsers"] == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let gateway = Gateway::start(Options::new()).await;
    let many = (1..=1_001).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    for (path, named) in [
        ("/v1/presence/online-count?window=0", "window: must be 1-180 seconds"),
        ("/v1/presence/online-count?window=181", "window: must be 1-180 seconds"),
        ("/v1/presence/online-count?window=long", "window: must be 1-180 seconds"),
        ("/v1/presence/online-count?windows=1", "windows"),
        ("/v1/presence/users", "ids"),
        ("/v1/presence/users?ids=", "ids: must name 1-1000 users"),
        ("/v1/presence/users?ids=1,x", "ids[1]: user id must be"),
        (&format!("/v1/presence/users?ids={many}"), "ids: must name 1-1000 users"),
    ] {
        let reply = gateway.http().get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["detail"].as_str().unwrap().contains(named)),
            (400, true),
            "{path}: {}",
            reply.text()
        );
    }
    for (body, named) in [
        (json!({}), "one of userId and installId is needed"),
        (json!({ "userId": 0 }), "userId: user id must be"),
        (json!({ "installId": "short" }), "installId: must be 8-64 characters"),
        (json!({ "userId": 1, "client": { "platform": 1 } }), "expected a string"),
        (json!({ "userId": 1, "user": 1 }), "user"),
    ] {
        let reply = gateway.http().post("/v1/presence/heartbeat", &body).await;
        assert_eq!(reply.status.as_u16(), 400, "{body}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(named), "{body}: {}", reply.text());
    }
    let install = json!({ "installId": "install-0001" });
    let answer = gateway.http().post("/v1/presence/heartbeat", &install).await.success().json();
    assert_eq!(answer["userId"], Value::Null);
}

/// What holds alone and with Redis.
async fn a_goodbye(gateway: &Gateway) {
    let phone = Client::connect(gateway, 42, "phone").await;
    let laptop = Client::connect(gateway, 42, "laptop").await;
    becomes(gateway, 42, true).await;
    let since = users(gateway, "42").await[0]["since"].clone();
    // Another device is left.
    phone.close().await;
    throughout("42 is online", secs(4), || is_online(gateway, 42)).await;
    let (closed, at) = (Instant::now(), unix_ms());
    laptop.close().await;
    becomes(gateway, 42, false).await;
    assert!(closed.elapsed() >= secs(1), "the grace");
    let gone = users(gateway, "42").await.remove(0);
    let seen = gone["lastSeen"].as_i64().unwrap();
    assert!((at - 100..at + 5_000).contains(&seen), "{gone} {at}");
    assert_eq!((gone["since"].as_i64().unwrap(), gone["devices"].as_array().unwrap().len()), (seen, 0));
    count_becomes(gateway, 0).await;
    // And back: it is another stay.
    let phone = Client::connect(gateway, 42, "phone").await;
    becomes(gateway, 42, true).await;
    assert!(users(gateway, "42").await[0]["since"].as_i64() > since.as_i64());
    drop(phone);
}

#[tokio::test]
async fn whose_last_device_says_goodbye_is_offline_after_the_grace() {
    let pair = Pair::start_with(|options| options.config(GRACE)).await;
    a_goodbye(&pair.a).await;
}

#[tokio::test]
async fn the_same_alone() {
    let gateway = Gateway::start(Options::new().config(GRACE)).await;
    a_goodbye(&gateway).await;
}

#[tokio::test]
async fn whoever_has_a_device_on_another_gateway_is_still_online() {
    let pair = Pair::start_with(|options| options.config(GRACE)).await;
    let phone = Client::connect(&pair.a, 42, "phone").await;
    let laptop = Client::connect(&pair.b, 42, "laptop").await;
    becomes(&pair.a, 42, true).await;
    phone.close().await;
    throughout("42 is online", secs(4), || is_online(&pair.a, 42)).await;
    laptop.close().await;
    becomes(&pair.a, 42, false).await;
}

#[tokio::test]
async fn a_gateway_that_stops_takes_its_users_along() {
    let mut pair = Pair::start_with(|options| options.config(GRACE)).await;
    let clients = [Client::connect(&pair.a, 42, "phone").await, Client::connect(&pair.a, 43, "phone").await];
    count_becomes(&pair.b, 2).await;
    pair.a.terminate();
    for mut client in clients {
        client.expect_close().await;
    }
    pair.a.exit(LONG).await;
    let ended = Instant::now();
    becomes(&pair.b, 42, false).await;
    becomes(&pair.b, 43, false).await;
    assert!(ended.elapsed() < secs(60), "it is not the window that did it");
}

#[tokio::test]
async fn a_hot_restart_is_not_seen() {
    let mut alone = Gateway::start(Options::new().config(GRACE)).await;
    let mut phone = Client::connect(&alone, 42, "phone").await;
    let other = Client::connect(&alone, 43, "phone").await;
    becomes(&alone, 42, true).await;
    becomes(&alone, 43, true).await;
    other.close().await;
    becomes(&alone, 43, false).await;
    let before = users(&alone, "42,43").await;
    alone.upgrade().await;
    phone.beat().await;
    let after = users(&alone, "42,43").await;
    assert_eq!((&before[0]["since"], &after[0]["online"]), (&after[0]["since"], &json!(true)));
    assert_eq!(before[1], after[1], "when who left is still known");
    phone.close().await;
    becomes(&alone, 42, false).await;
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
