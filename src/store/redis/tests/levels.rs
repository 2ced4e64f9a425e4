use nix::sys::signal::Signal;

use super::*;
use crate::redis::Wait;
use crate::redis::testing::servers;

const TIMEOUT: Duration = Duration::from_secs(2);

fn exactly(level: u32) -> Durability {
    Durability { level: Some(level), replicas: 1 }
}

fn on_disk(fsync: &str) -> [&str; 4] {
    ["--appendonly", "yes", "--appendfsync", fsync]
}

#[tokio::test]
async fn auto_is_what_the_settings_confirm() {
    let server = TestRedis::start_with("redis-server", &on_disk("always"));
    let client = server.connect(AUTO, TIMEOUT, false);
    let is = assured(&client, |is| is.settled).await;
    assert_eq!((is.level, is.wait, is.short), (2, Wait::Nothing, None));
    for (setting, value) in [
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "allkeys-lru"),
        ("no-appendfsync-on-rewrite", "yes"),
    ] {
        let server = TestRedis::start_with("redis-server", &on_disk("always"));
        let _: String = server.query(&["CONFIG", "SET", setting, value]).await;
        let client = server.connect(AUTO, TIMEOUT, false);
        let is = assured(&client, |is| is.settled).await;
        assert_eq!((is.level, is.short), (1, None), "{setting}: this version has no WAITAOF either");
        assert!(say(&store(&client), &message("p2p:1:2", 1, "a")).await.is_ok());
    }
}

#[tokio::test]
async fn below_a_configured_level_nothing_is_appended() {
    let server = TestRedis::start_with("redis-server", &on_disk("everysec"));
    let client = server.connect(exactly(2), TIMEOUT, false);
    let store = store(&client);
    assured(&client, |is| is.settled).await;
    let a = message("p2p:1:2", 1, "a");
    assert!(matches!(say(&store, &a).await, Err(StoreError::Unavailable)));
    let why = "store.level 2 is configured, this Redis confirms 1";
    assert_eq!(client.trouble().as_deref(), Some(why));
    assert_eq!(log_of(&store, "p2p:1:2").await, []);

    let _: String = server.query(&["CONFIG", "SET", "appendfsync", "always"]).await;
    assured(&client, |is| is.short.is_none()).await;
    assert_eq!(say_until_stored(&store, &a).await.0, 1);
    assert_eq!((store.level(), client.trouble()), (2, None));
}

#[tokio::test]
async fn waitaof_is_believed_where_it_waits() {
    let redis = TestRedis::start_with(&servers::redis_8(), &on_disk("everysec"));
    let valkey = TestRedis::start_with(&servers::valkey_9(), &on_disk("everysec"));
    let (honest, hasty) = (redis.connect(AUTO, TIMEOUT, false), valkey.connect(AUTO, TIMEOUT, false));
    let is = assured(&hasty, |is| is.settled).await;
    assert_eq!((is.level, is.wait), (1, Wait::Nothing));
    let is = assured(&honest, |is| is.settled).await;
    assert_eq!((is.level, is.wait), (2, Wait::Aof(0)));

    // Many at a time wait for the same fsync.
    let store = store(&honest);
    let messages: Vec<_> = (1..=20).map(|to| message(&format!("p2p:{to}:99"), 99, "a")).collect();
    let started = Instant::now();
    let sends = messages.iter().map(|message| say(&store, message));
    for outcome in futures_util::future::join_all(sends).await {
        assert!(matches!(outcome, Ok(Appended::Stored { seq: 1, .. })));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A duplicate waits as its original did.
    let again = say(&store, &messages[0]).await;
    assert!(matches!(again, Ok(Appended::Duplicate { seq: 1, .. })), "{again:?}");
    // Known by its process: after a reconnect without another probe.
    let _: i64 = redis.query(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let mut link = honest.link();
    let back = link.wait_for(|link| matches!(link, Link::Up { generation: 2, .. }));
    let back = tokio::time::timeout(PATIENCE, back).await.expect("in time").unwrap();
    assert!(matches!(&*back, Link::Up { assurance, .. } if assurance.level == 2));
}

#[tokio::test]
async fn settings_that_no_longer_hold_lower_the_level() {
    let server = TestRedis::start_with("redis-server", &on_disk("always"));
    let client = server.connect(AUTO, TIMEOUT, false);
    assured(&client, |is| is.settled && is.level == 2).await;
    let _: String = server.query(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    assured(&client, |is| is.level == 1).await;
}

/// With either way of asking the replica.
#[tokio::test]
async fn level_3_is_confirmed_by_a_replica() {
    let new = servers::redis_8();
    for (binary, fsync, wait) in
        [("redis-server", "always", Wait::Replicas(1)), (new.as_str(), "everysec", Wait::Aof(1))]
    {
        let primary = TestRedis::start_with(binary, &on_disk(fsync));
        let client = primary.connect(exactly(3), TIMEOUT, false);
        let store = store(&client);
        let is = assured(&client, |is| is.settled && is.level == 2).await;
        assert_eq!(is.short.as_deref(), Some("store.level 3 is configured, this Redis confirms 2"));
        let a = message("p2p:1:2", 1, "a");
        assert!(matches!(say(&store, &a).await, Err(StoreError::Unavailable)));

        let of = format!("127.0.0.1 {}", primary.port());
        let mut settings = on_disk(fsync).to_vec();
        settings.extend(["--replicaof", &of]);
        let replica = TestRedis::start_with(binary, &settings);
        let is = assured(&client, |is| is.level == 3).await;
        assert_eq!((is.wait, is.short), (wait, None), "{binary}");
        assert_eq!(say_until_stored(&store, &a).await.0, 1);

        // The replica hangs: in the log, but never acknowledged.
        replica.signal(Signal::SIGSTOP);
        let b = message("p2p:1:2", 1, "b");
        assert!(matches!(say(&store, &b).await, Err(StoreError::Unavailable)), "{binary}");
        assert_eq!(log_of(&store, "p2p:1:2").await.len(), 2);
        assert!(matches!(say(&store, &b).await, Err(StoreError::Unavailable)), "nor as a duplicate");
        assured(&client, |is| is.short.is_some()).await;
        replica.signal(Signal::SIGCONT);
        assert_eq!(say_until_stored(&store, &b).await.0, 2, "{binary}");
        assert_eq!(store.level(), 3);
    }
}
