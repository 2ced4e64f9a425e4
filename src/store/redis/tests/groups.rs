use std::sync::Arc;

use super::super::super::{Changed, Created, History, Keep, MemberChange, Retention, Role, Trimmed};
use super::*;

fn members(ids: std::ops::RangeInclusive<i64>) -> Vec<(UserId, Role)> {
    ids.map(|id| (user(id), Role::Member)).collect()
}

async fn everybody(store: &RedisStore, group: &ConversationId) -> Vec<i64> {
    let page = store.members(group, None, 1_000_000).await.unwrap().unwrap();
    page.members.into_iter().map(|(user, _)| user.get()).collect()
}

#[tokio::test]
async fn a_creation_that_broke_off_leaves_nothing() {
    let server = TestRedis::start();
    let store = store(&server.client().await);
    let team = id("g:team");
    let _: i64 = server.query(&["HSET", "{c:g:team}:members", "7", "member|0|0"]).await;
    let _: i64 = server.query(&["ZADD", "{c:g:team}:roster", "0", "0000000000000000007"]).await;
    let _: String = server.query(&["SET", "{c:g:team}:creating", "another", "PX", "600000"]).await;

    let made = store.create(&team, &members(1..=3), History::Full).await;
    assert!(matches!(made, Err(StoreError::Unavailable)), "another one is at it: {made:?}");
    assert_eq!(store.describe(&team).await.unwrap(), None);
    assert_eq!(store.tops(std::slice::from_ref(&team)).await.unwrap(), [None]);
    assert_eq!(store.members(&team, None, 10).await.unwrap(), None);
    assert!(matches!(
        say(&store, &message("g:team", 7, "m")).await,
        Ok(Appended::Refused(super::super::super::Refused::NotFound))
    ));

    // Its lease has run out.
    let _: i64 = server.query(&["DEL", "{c:g:team}:creating"]).await;
    assert!(matches!(store.create(&team, &members(1..=3), History::Full).await, Ok(Created::New(_))));
    assert_eq!(everybody(&store, &team).await, [1, 2, 3]);
    for key in ["meta", "members", "roster"] {
        let ttl: i64 = server.query(&["TTL", &format!("{{c:g:team}}:{key}")]).await;
        assert_eq!(ttl, -1, "{key}");
    }
}

#[tokio::test]
async fn of_two_creations_one_is_done() {
    let server = TestRedis::start();
    let store = Arc::new(store(&server.client().await));
    for round in 0..5 {
        let team = id(&format!("g:team-{round}"));
        let create = |ids| {
            let (store, team) = (Arc::clone(&store), team.clone());
            tokio::spawn(async move { store.create(&team, &members(ids), History::Full).await })
        };
        let all = [create(1..=2_500), create(1..=2_500), create(2..=2_400)];
        let mut outcomes = Vec::new();
        for one in all {
            outcomes.push(one.await.unwrap());
        }
        let won = outcomes.iter().filter(|o| matches!(o, Ok(Created::New(_)))).count();
        let lost = |o: &Result<_, _>| {
            matches!(o, Ok(Created::Same(_) | Created::Other) | Err(StoreError::Unavailable))
        };
        assert!(won == 1 && outcomes.iter().filter(|o| lost(o)).count() == 2, "{outcomes:?}");
        let count = everybody(&store, &team).await.len();
        let expected = if matches!(outcomes[2], Ok(Created::New(_))) { 2_399 } else { 2_500 };
        assert_eq!(count, expected);
    }
}

#[tokio::test]
async fn a_group_made_anew_is_another_one() {
    let server = TestRedis::start();
    let store = store(&server.client().await);
    let team = id("g:team");
    let Created::New(first) = store.create(&team, &members(1..=2_500), History::Full).await.unwrap() else {
        panic!("new")
    };
    say(&store, &message("g:team", 1, "m")).await.unwrap();
    // Its epoch is ahead of the clock, as after a failover to another one.
    let ahead = first.epoch + 3_600_000_000;
    let _: i64 = server.query(&["HSET", "{c:g:team}:meta", "epoch", &ahead.to_string()]).await;
    assert!(store.delete(&team).await.unwrap().is_some());
    assert_eq!(store.describe(&team).await.unwrap(), None);
    let left: Vec<String> = server.query(&["KEYS", "*"]).await;
    assert_eq!(left, ["{c:g:team}:meta"], "and the indexes are empty");
    let ttl: i64 = server.query(&["TTL", "{c:g:team}:meta"]).await;
    assert!(ttl > 0);

    let Created::New(second) = store.create(&team, &members(1..=3), History::Full).await.unwrap() else {
        panic!("new")
    };
    assert_eq!((second.epoch, second.top), (ahead + 1, 0));
    let ttl: i64 = server.query(&["TTL", "{c:g:team}:meta"]).await;
    assert_eq!(ttl, -1);
    assert!(matches!(say(&store, &message("g:team", 1, "m")).await, Ok(Appended::Stored { seq: 1, .. })));
}

/// Whoever is in a group finds it, however joining and leaving met.
#[tokio::test]
async fn an_index_names_what_its_user_is_in() {
    let server = TestRedis::start();
    let store = Arc::new(store(&server.client().await));
    let team = id("g:team");
    store.create(&team, &members(1..=1), History::Full).await.unwrap();
    for round in 0..100 {
        let busy: Vec<_> = (0..4)
            .map(|n| {
                let (store, team) = (Arc::clone(&store), team.clone());
                tokio::spawn(async move {
                    if (round + n) % 2 == 0 {
                        store.put_member(&team, user(2), MemberChange::default()).await.unwrap();
                    } else {
                        store.remove_member(&team, user(2)).await.unwrap();
                    }
                })
            })
            .collect();
        for one in busy {
            one.await.unwrap();
        }
        let is_in = everybody(&store, &team).await.contains(&2);
        let indexed = !store.index(&[user(2)], 0, 0, 10).await.unwrap()[0].is_empty();
        assert_eq!(is_in, indexed, "round {round}");
    }
    let refused = store.put_member(&id("g:none"), user(3), MemberChange::default()).await.unwrap();
    assert_eq!(refused.changed, Changed::NotFound);
    assert!(store.index(&[user(3)], 0, 0, 10).await.unwrap()[0].is_empty(), "and no index names it");
}

#[tokio::test]
async fn one_gateway_at_a_time_removes_what_is_old() {
    let server = TestRedis::start();
    let client = server.client().await;
    let (one, other) = (store(&client), store(&client));
    // Longer than a piece, and its end is found by bisection.
    let batch: Vec<Append> = (1..=12_345)
        .map(|n| {
            let mut message = message("p2p:1:2", 1, &format!("m{n}"));
            message.push.server_time = n;
            message
        })
        .collect();
    for part in batch.chunks(1_000) {
        one.append(&part.iter().collect::<Vec<_>>()).await;
    }
    let keep = Keep { age_ms: Some(100), count: None };
    let retention = Retention { p2p: keep, group: keep };
    let step = one.trim(12_100, &retention, "").await.unwrap();
    assert_eq!(step, Trimmed { messages: 11_999, conversations: 1, cursor: String::new() });
    let left = log_of(&one, "p2p:1:2").await;
    assert_eq!((left.first().unwrap().0, left.last().unwrap().0), (12_000, 12_345));

    assert_eq!(other.trim(99_999, &retention, "").await.unwrap(), Trimmed::default());
    let _: i64 = server.query(&["DEL", "retention"]).await;
    assert_eq!(other.trim(99_999, &retention, "").await.unwrap().messages, 346);
    assert_eq!(one.trim(99_999, &retention, "").await.unwrap(), Trimmed::default());
}

#[tokio::test]
#[ignore = "a measurement"]
async fn a_hundred_thousand_members() {
    let server = TestRedis::start();
    let store = store(&server.client().await);
    let _: String = server
        .query(&["CONFIG", "SET", "slowlog-log-slower-than", "300", "slowlog-max-len", "1000000"])
        .await;
    let team = id("g:big");
    let slowest = async || {
        let log: Vec<(i64, i64, i64, Vec<String>)> = server
            .query::<Vec<Vec<::redis::Value>>>(&["SLOWLOG", "GET", "-1"])
            .await
            .into_iter()
            .map(|entry| {
                let entry: Vec<_> = entry.into_iter().take(4).collect();
                ::redis::from_redis_value(::redis::Value::Array(entry)).unwrap()
            })
            .collect();
        log.into_iter().map(|entry| (entry.2, entry.3[0].clone())).max().unwrap()
    };
    let all = members(1..=100_000);
    let started = Instant::now();
    store.create(&team, &all, History::Full).await.unwrap();
    println!("create: {:?}, slowest command (us): {:?}", started.elapsed(), slowest().await);
    let started = Instant::now();
    assert!(matches!(store.create(&team, &all, History::Full).await.unwrap(), Created::Same(_)));
    println!("compare: {:?}", started.elapsed());
    let _: String = server.query(&["SLOWLOG", "RESET"]).await;
    let started = Instant::now();
    store.delete(&team).await.unwrap();
    println!("delete: {:?}, slowest command (us): {:?}", started.elapsed(), slowest().await);
}
