//! Watchers are told what is so, and every change once.

use tidegate::proto::ErrorCode;

use super::common::{Client, Gateway, Options, Pair, Redis};
use super::*;

/// Longer than the grace, and what is added to it, and a look.
const SETTLED: Duration = secs(6);

#[tokio::test]
async fn a_watcher_is_told_what_is_so_and_then_what_changes() {
    let pair = Pair::start_with(open).await;
    let _there = Client::connect(&pair.a, 43, "phone").await;
    becomes(&pair.b, 43, true).await;
    let mut watcher = Client::connect(&pair.b, 42, "phone").await;
    let told = watcher.watch(&[43, 44]).await;
    assert_eq!((told[0].user_id, told[0].online, told[1].user_id, told[1].online), (43, true, 44, false));
    assert_eq!(told[0].device_ids, ["phone"]);
    assert!(told[0].version > 0 && told[0].since > 0);

    let mut version = told[1].version;
    for round in 0..2 {
        let comes = Client::connect(&pair.a, 44, &format!("device-{round}")).await;
        let event = watcher.expect_event().await;
        assert_eq!((event.user_id, event.online, event.version > version), (44, true, true));
        assert_eq!(event.device_ids, [format!("device-{round}")]);
        version = event.version;
        comes.close().await;
        let event = watcher.expect_event().await;
        assert_eq!((event.user_id, event.online, event.version > version), (44, false, true));
        assert!(event.since > 0 && event.device_ids.is_empty());
        version = event.version;
    }
    assert!(watcher.events(secs(2)).await.is_empty(), "each was told once");

    // Whoever begins later is not told less, nor older.
    let mut late = Client::connect(&pair.a, 45, "phone").await;
    let told = late.watch(&[44]).await;
    assert!(!told[0].online && told[0].version >= version);
}

#[tokio::test]
async fn alone_it_is_the_same() {
    let gateway = Gateway::start(open(Options::new())).await;
    let mut watcher = Client::connect(&gateway, 42, "phone").await;
    assert!(!watcher.watch(&[43]).await[0].online);
    let comes = Client::connect(&gateway, 43, "phone").await;
    assert!(watcher.expect_event().await.online);
    comes.close().await;
    assert!(!watcher.expect_event().await.online);
}

#[tokio::test]
async fn a_quick_reconnect_is_not_told() {
    let pair = Pair::start_with(open).await;
    let mut watcher = Client::connect(&pair.b, 42, "phone").await;
    let phone = Client::connect(&pair.a, 43, "phone").await;
    becomes(&pair.b, 43, true).await;
    let told = watcher.watch(&[43]).await;
    assert!(told[0].online);
    phone.close().await;
    let phone = Client::connect(&pair.a, 43, "phone").await;
    assert_eq!(watcher.events(SETTLED).await, [], "the same gateway");
    phone.close().await;
    let phone = Client::connect(&pair.b, 43, "phone").await;
    assert_eq!(watcher.events(SETTLED).await, [], "another one");
    drop(phone);
}

/// Another user comes and goes: both are told once.
async fn goes_on(watcher: &mut Client, gateway: &Gateway, user: i64) {
    let comes = Client::connect(gateway, user, "phone").await;
    let event = watcher.expect_event().await;
    assert_eq!((event.user_id, event.online), (user, true));
    comes.close().await;
    let event = watcher.expect_event().await;
    assert_eq!((event.user_id, event.online), (user, false));
    assert_eq!(watcher.events(secs(2)).await, []);
}

#[tokio::test]
async fn a_hot_restart_is_not_told_and_watches_go_on() {
    let mut pair = Pair::start_with(open).await;
    let (mut here, mut there) =
        (Client::connect(&pair.a, 42, "phone").await, Client::connect(&pair.b, 42, "laptop").await);
    let mut seen = Client::connect(&pair.a, 43, "phone").await;
    becomes(&pair.b, 43, true).await;
    for watcher in [&mut here, &mut there] {
        assert!(watcher.watch(&[43, 44]).await[0].online);
    }
    pair.a.upgrade().await;
    seen.beat().await;
    let (a, b) = tokio::join!(here.events(SETTLED), there.events(SETTLED));
    assert_eq!((a, b), (vec![], vec![]));
    goes_on(&mut here, &pair.a, 44).await;
    assert_eq!(there.events(secs(1)).await.len(), 2);
}

#[tokio::test]
async fn alone_a_hot_restart_is_not_told_either() {
    let mut gateway = Gateway::start(open(Options::new())).await;
    let mut watcher = Client::connect(&gateway, 42, "phone").await;
    let mut seen = Client::connect(&gateway, 43, "phone").await;
    becomes(&gateway, 43, true).await;
    assert!(watcher.watch(&[43, 44]).await[0].online);
    gateway.upgrade().await;
    seen.beat().await;
    assert_eq!(watcher.events(SETTLED).await, []);
    goes_on(&mut watcher, &gateway, 44).await;
}

#[tokio::test]
async fn watching_ends_when_asked_and_with_the_connection() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(open(Options::cluster(&redis, "gw-a"))).await;
    let mut watcher = Client::connect(&gateway, 42, "phone").await;
    watcher.watch(&[43, 44, 45]).await;
    watcher.send(request(&[43], false)).await;
    let _one = Client::connect(&gateway, 43, "phone").await;
    let _two = Client::connect(&gateway, 44, "phone").await;
    becomes(&gateway, 43, true).await;
    becomes(&gateway, 44, true).await;
    let events = watcher.events(secs(1)).await;
    assert_eq!(events.iter().map(|event| event.user_id).collect::<Vec<_>>(), [44]);
    watcher.send(request(&[], false)).await;
    watcher.beat().await;
    let _three = Client::connect(&gateway, 45, "phone").await;
    becomes(&gateway, 45, true).await;
    assert_eq!(watcher.events(secs(1)).await, []);

    watcher.watch(&[46]).await;
    watched_become(&gateway, 1.0).await;
    watcher.close().await;
    watched_become(&gateway, 0.0).await;
}

async fn watched_become(gateway: &Gateway, count: f64) {
    eventually(&format!("{count} are watched"), LONG, || async {
        let text = gateway.http().get("/metrics").await.success().text();
        let line = text.lines().find(|line| line.starts_with("tidegate_presence_watched_users ")).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        ((value - count).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_than_may_be_watched_are_refused_whole() {
    let config = format!("{GRACE}visibility = \"all\"\nmax_watched = 3\n");
    let gateway = Gateway::start(Options::new().config(config)).await;
    let mut watcher = Client::connect(&gateway, 42, "phone").await;
    watcher.watch(&[43, 44]).await;
    watcher.send(request(&[45, 46], true)).await;
    let error = watcher.expect_error().await;
    assert_eq!(error.code(), ErrorCode::TooLarge);
    assert!(error.message.contains("at most 3"), "{}", error.message);
    watcher.watch(&[44, 45]).await;
    watcher.send(request(&[43, 44], false)).await;
    watcher.watch(&[46, 47]).await;

    for (users, named) in [(vec![], "names nobody"), (vec![48, -1], "userIds[1]")] {
        watcher.send(request(&users, true)).await;
        let error = watcher.expect_error().await;
        assert_eq!((error.code(), error.message.contains(named)), (ErrorCode::Invalid, true), "{error:?}");
    }
    assert_eq!(watcher.events(secs(1)).await, [], "nothing of what was refused");
}
