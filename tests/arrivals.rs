//! Who comes while Redis is away is served all the same, and reachable once
//! it is back.

mod common;

use std::time::Instant;

use common::payload::text_of;
use common::{Client, Gateway, Options, Redis, eventually, secs};

async fn becomes_routed(redis: &Redis, user: i64, gateway: &str) {
    eventually(&format!("route:{user} is {gateway}"), secs(20), || async {
        let route: Option<String> = redis.query(&["GET", &format!("route:{user}")]).await;
        (route.as_deref() == Some(gateway)).then_some(())
    })
    .await;
    let devices: Vec<String> = redis.query(&["HKEYS", &format!("{{route:{user}}}:devices")]).await;
    assert_eq!(devices, ["phone"]);
}

async fn arrives(gateway: &Gateway, user: i64) -> Client {
    let start = Instant::now();
    let mut client = Client::connect(gateway, user, "phone").await;
    assert!(start.elapsed() < secs(4), "Ready took {:?}", start.elapsed());
    client.beat().await;
    client
}

#[tokio::test]
async fn whoever_comes_while_redis_is_stopped_is_routed_when_it_is_back() {
    let mut redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut early = Client::connect(&gateway, 41, "phone").await;
    redis.stop();
    let mut clients = Vec::new();
    for user in 42..47 {
        clients.push(arrives(&gateway, user).await);
    }
    // Long enough that nothing of the first tries is still under way.
    tokio::time::sleep(secs(5)).await;
    for client in &mut clients {
        client.beat().await;
    }
    let gone = clients.pop().unwrap();
    gone.close().await;
    redis.start_empty().await;
    for user in 41..46 {
        becomes_routed(&redis, user, "gw-a").await;
    }
    let route: Option<String> = redis.query(&["GET", "route:46"]).await;
    assert_eq!(route, None, "who left during the outage has a route");
    early.store_text("p2p:41:42", "m-1", "there you are").await;
    assert_eq!(text_of(&clients[0].expect_push().await), "there you are");
}

#[tokio::test]
async fn whoever_comes_while_redis_hangs_is_routed_when_it_answers() {
    let redis = Redis::start().await;
    let (a, b) = tokio::join!(
        Gateway::start(Options::cluster(&redis, "gw-a")),
        Gateway::start(Options::cluster(&redis, "gw-b"))
    );
    let mut early = Client::connect(&b, 41, "phone").await;
    redis.pause();
    let mut late = arrives(&a, 42).await;
    tokio::time::sleep(secs(5)).await;
    late.beat().await;
    redis.resume();
    becomes_routed(&redis, 42, "gw-a").await;
    // The route is there before the subscription need be.
    for gateway in [&a, &b] {
        eventually("ready again", secs(20), || async {
            (gateway.http().try_status("/readyz").await == Some(200)).then_some(())
        })
        .await;
    }
    early.store_text("p2p:41:42", "m-1", "across").await;
    assert_eq!(text_of(&late.expect_push().await), "across");
}
