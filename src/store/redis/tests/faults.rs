use nix::sys::signal::Signal;

use super::*;

struct Fault {
    name: &'static str,
    inflict: &'static [&'static [&'static str]],
    heal: &'static [&'static [&'static str]],
    /// Whether the connection is given up for it.
    ends_session: bool,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "OOM",
        inflict: &[&["CONFIG", "SET", "maxmemory", "1"]],
        heal: &[&["CONFIG", "SET", "maxmemory", "0"]],
        ends_session: false,
    },
    Fault {
        name: "NOREPLICAS",
        inflict: &[&["CONFIG", "SET", "min-replicas-to-write", "1"]],
        heal: &[&["CONFIG", "SET", "min-replicas-to-write", "0"]],
        ends_session: false,
    },
    Fault {
        name: "READONLY",
        inflict: &[&["REPLICAOF", "127.0.0.1", "1"]],
        heal: &[&["REPLICAOF", "NO", "ONE"]],
        ends_session: true,
    },
    Fault { name: "timeout", inflict: &[&["CLIENT", "PAUSE", "2500", "ALL"]], heal: &[], ends_session: true },
];

/// Whatever the server answers, it is "unknown" and passes: tried again, each
/// message is there once.
#[tokio::test]
async fn a_fault_is_no_refusal_and_a_message_is_stored_once() {
    for Fault { name, inflict, heal, ends_session } in FAULTS {
        let server = TestRedis::start();
        let client = server.connect(AUTO, Duration::from_millis(500), false);
        let store = store(&client);
        assert_eq!(say_until_stored(&store, &message("p2p:1:2", 1, "a")).await.0, 1, "{name}");
        let before = generation(&client);
        for command in *inflict {
            let _: String = server.query(command).await;
        }
        let b = message("p2p:1:2", 1, "b");
        let outcome = say(&store, &b).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable)), "{name}: {outcome:?}");
        if *ends_session {
            let mut link = client.link();
            let down = link.wait_for(|link| *link == Link::Down);
            tokio::time::timeout(PATIENCE, down).await.expect(name).unwrap();
        }
        for command in *heal {
            let _: String = server.query(command).await;
        }
        assert_eq!(say_until_stored(&store, &b).await.0, 2, "{name}");
        assert_eq!(say_until_stored(&store, &message("p2p:1:2", 1, "c")).await.0, 3, "{name}");
        let ids: Vec<_> = log_of(&store, "p2p:1:2").await.into_iter().map(|(_, id)| id).collect();
        assert_eq!(ids, ["s-a", "s-b", "s-c"], "{name}");
        assert_eq!(generation(&client) > before, *ends_session, "{name}");
    }
}

#[tokio::test]
async fn a_save_that_fails_is_no_refusal() {
    let gone = tempfile::tempdir().unwrap();
    let dir = gone.path().join("d");
    std::fs::create_dir(&dir).unwrap();
    let server = TestRedis::start_with(
        "redis-server",
        &["--dir", dir.to_str().unwrap(), "--save", "3600 1", "--stop-writes-on-bgsave-error", "yes"],
    );
    let store = store(&server.client().await);
    std::fs::remove_dir(&dir).unwrap();
    let _: String = server.query(&["BGSAVE"]).await;
    let end = Instant::now() + PATIENCE;
    while !server.query::<String>(&["INFO", "persistence"]).await.contains("rdb_last_bgsave_status:err") {
        assert!(Instant::now() < end, "the save works");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let a = message("p2p:1:2", 1, "a");
    assert!(matches!(say(&store, &a).await, Err(StoreError::Unavailable)));
    let _: String = server.query(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    assert_eq!(say_until_stored(&store, &a).await.0, 1);
}

#[tokio::test]
async fn scripts_that_are_forgotten_are_loaded_again() {
    let server = TestRedis::start();
    let store = store(&server.client().await);
    for n in 0..100 {
        let _: String = server.query(&["SCRIPT", "FLUSH"]).await;
        let outcome = say(&store, &message("p2p:1:2", 1, &format!("m{n}"))).await;
        assert!(matches!(outcome, Ok(Appended::Stored { seq, .. }) if seq == n + 1), "{outcome:?}");
    }
}

#[tokio::test]
async fn connections_that_are_cut_lose_and_double_nothing() {
    let server = TestRedis::start();
    let client = server.client().await;
    let store = store(&client);
    let cut = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            let _: i64 = server.query(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
    };
    let send = async {
        for n in 1..=300 {
            let seq = say_until_stored(&store, &message("p2p:1:2", 1, &format!("m{n}"))).await.0;
            assert_eq!(seq, n);
        }
    };
    tokio::join!(cut, send);
    assert_eq!(log_of(&store, "p2p:1:2").await.len(), 300);
    assert!(generation(&client) > 1);
}

/// A replica that lags is promoted: seqs are given anew, in another epoch.
#[tokio::test]
async fn a_promoted_replica_that_lags_is_another_history() {
    let mut primary = TestRedis::start();
    let port = primary.port().to_string();
    let replica = TestRedis::start_with("redis-server", &["--replicaof", &format!("127.0.0.1 {port}")]);
    let client = primary.connect(AUTO, Duration::from_millis(500), false);
    let store = store(&client);
    let (_, epoch) = say_until_stored(&store, &message("p2p:1:2", 1, "a")).await;
    let end = Instant::now() + PATIENCE;
    while replica.query::<Option<i64>>(&["HGET", "{c:p2p:1:2}:meta", "top"]).await != Some(1) {
        assert!(Instant::now() < end, "never replicated");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From here on it falls behind.
    let _: String = replica.query(&["REPLICAOF", "127.0.0.1", "1"]).await;
    for (n, lost) in ["b", "c"].into_iter().enumerate() {
        let (seq, same) = say_until_stored(&store, &message("p2p:1:2", 1, lost)).await;
        assert_eq!((seq, same), (2 + i64::try_from(n).unwrap(), epoch));
    }
    primary.stop();
    let _: String = replica.query(&["REPLICAOF", "NO", "ONE"]).await;
    let _: String = replica.query(&["CONFIG", "SET", "port", &port]).await;
    let (seq, raised) = say_until_stored(&store, &message("p2p:1:2", 1, "d")).await;
    assert_eq!(seq, 2, "given anew");
    assert!(raised > epoch);
    assert_eq!(say_until_stored(&store, &message("p2p:1:2", 1, "e")).await, (3, raised), "once");
    let ids: Vec<_> = log_of(&store, "p2p:1:2").await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["s-a", "s-d", "s-e"]);
}

#[tokio::test]
async fn restored_data_are_another_history_once() {
    let server = TestRedis::start();
    let client = server.connect(AUTO, Duration::from_secs(1), false);
    let running = store(&client);
    let (_, epoch) = say_until_stored(&running, &message("p2p:1:2", 1, "a")).await;
    let started = store(&server.connect(AUTO, Duration::from_secs(1), true));
    let (seq, raised) = say_until_stored(&started, &message("p2p:1:2", 1, "b")).await;
    assert!(seq == 2 && raised > epoch);
    // One that was running learns of it, too.
    let mut link = client.link();
    let again = link.wait_for(|link| matches!(link, Link::Up { generation: 2.., .. }));
    tokio::time::timeout(PATIENCE, again).await.expect("in time").unwrap();
    assert_eq!(say_until_stored(&running, &message("p2p:1:2", 1, "c")).await, (3, raised));
    assert_eq!(say_until_stored(&started, &message("p2p:1:2", 1, "d")).await, (4, raised));
    let next = store(&server.connect(AUTO, Duration::from_secs(1), false));
    assert_eq!(say_until_stored(&next, &message("p2p:1:2", 1, "e")).await, (5, raised));
}

#[tokio::test]
async fn a_server_that_hangs_is_unknown() {
    let server = TestRedis::start();
    let store = store(&server.connect(AUTO, Duration::from_millis(300), false));
    let (_, epoch) = say_until_stored(&store, &message("p2p:1:2", 1, "a")).await;
    server.signal(Signal::SIGSTOP);
    let b = message("p2p:1:2", 1, "b");
    assert!(matches!(say(&store, &b).await, Err(StoreError::Unavailable)));
    server.signal(Signal::SIGCONT);
    assert_eq!(say_until_stored(&store, &b).await, (2, epoch));
    assert_eq!(log_of(&store, "p2p:1:2").await.len(), 2);
}
