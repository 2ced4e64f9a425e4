//! Nothing that goes missing leaves a watcher with what is not so.

use super::common::{Client, Gateway, Options, Pair, Redis};
use super::*;

/// Six seconds of silence are the end.
const SHORT: &str =
    "[heartbeat]\ninterval = \"2s\"\n[presence]\nwindow = \"6s\"\ngrace = \"1s\"\nvisibility = \"all\"\n";

#[tokio::test]
async fn a_gateway_that_is_killed_takes_each_user_offline_once() {
    let mut pair = Pair::start_with(|options| options.config(SHORT)).await;
    let users: Vec<i64> = (100..120).collect();
    let mut clients = Vec::new();
    for user in &users {
        clients.push(Client::connect(&pair.a, *user, "phone").await);
    }
    let mut stays = Client::connect(&pair.b, 120, "phone").await;
    let mut watchers =
        [Client::connect(&pair.b, 42, "phone").await, Client::connect(&pair.b, 43, "phone").await];
    for user in [100, 119, 120] {
        becomes(&pair.b, user, true).await;
    }
    let all: Vec<i64> = (100..121).collect();
    for watcher in &mut watchers {
        let told = watcher.watch(&all).await;
        assert!(told.iter().all(|event| event.online), "{told:?}");
    }
    pair.a.kill();
    let mut gone = [Vec::new(), Vec::new()];
    let end = Instant::now() + LONG;
    while gone.iter().any(|gone| gone.len() < users.len()) {
        assert!(Instant::now() < end, "{gone:?}");
        stays.beat().await;
        for (watcher, gone) in watchers.iter_mut().zip(&mut gone) {
            gone.extend(watcher.events(Duration::ZERO).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let [first, second] = &mut watchers;
    let (stay, first, second) = tokio::join!(
        async {
            for _ in 0..8 {
                stays.beat().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        },
        first.events(secs(4)),
        second.events(secs(4))
    );
    let () = stay;
    assert_eq!((first, second), (vec![], vec![]), "none is told again");
    for gone in &mut gone {
        assert!(gone.iter().all(|event| !event.online));
        gone.sort_by_key(|event| event.user_id);
        assert_eq!(gone.iter().map(|event| event.user_id).collect::<Vec<_>>(), users);
    }
}

#[tokio::test]
async fn what_the_bus_loses_is_found_in_redis() {
    let pair = Pair::start_with(open).await;
    let mut watcher = Client::connect(&pair.b, 42, "phone").await;
    assert!(!watcher.watch(&[43, 44]).await[0].online);
    pair.may_publish(false).await;
    let _one = Client::connect(&pair.a, 43, "phone").await;
    let event = watcher.expect_event().await;
    assert_eq!((event.user_id, event.online, event.device_ids.len()), (43, true, 1));
    pair.may_publish(true).await;
    let _two = Client::connect(&pair.a, 44, "phone").await;
    assert_eq!(watcher.expect_event().await.user_id, 44);
    assert_eq!(watcher.events(secs(3)).await, [], "each once");
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_takes_nobody_offline() {
    let mut redis = Redis::start().await;
    let start = |id: &'static str, redis: &Redis| Gateway::start(Options::cluster(redis, id).config(SHORT));
    let (a, b) = (start("gw-a", &redis).await, start("gw-b", &redis).await);
    let mut watcher = Client::connect(&b, 42, "phone").await;
    let mut there = Client::connect(&a, 43, "phone").await;
    becomes(&b, 43, true).await;
    assert!(watcher.watch(&[43]).await[0].online);
    redis.stop();
    let mut events = Vec::new();
    for round in 0..30 {
        if round == 4 {
            redis.start_empty().await;
        }
        there.beat().await;
        events.extend(watcher.events(Duration::from_millis(400)).await);
    }
    assert!(events.iter().all(|event| event.online), "{events:?}");
    becomes(&b, 43, true).await;
    there.close().await;
    assert!(!watcher.expect_event().await.online || !watcher.expect_event().await.online);
}
