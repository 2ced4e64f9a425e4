//! The suite both backends pass.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::redis::testing::TestRedis;
use crate::types::{Epoch, GatewayId, unix_ms};

/// So long that a machine that stands still for a second changes nothing.
const RULES: Rules = Rules { window_ms: 6_000, grace_ms: 2_000, hold_ms: 2_000 };

fn gateway(name: &str) -> GatewayRef {
    GatewayRef { id: GatewayId::new(name).unwrap(), epoch: Epoch(7) }
}

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn heard(id: i64, age_ms: i64) -> Heard {
    Heard { user: user(id), age_ms }
}

async fn step(presence: &Presence, step: Step<'_>) -> Stepped {
    presence.step(step).await.unwrap().0
}

async fn hear(presence: &Presence, all: &[Heard]) -> Vec<(i64, bool)> {
    told(&step(presence, Step { heard: all, ..Step::default() }).await)
}

fn told(stepped: &Stepped) -> Vec<(i64, bool)> {
    stepped.changes.iter().map(|change| (change.user.get(), change.online)).collect()
}

async fn leave(presence: &Presence, id: i64, at: i64) -> Vec<(i64, bool)> {
    let farewells = [Farewell { user: user(id), at }];
    told(&step(presence, Step { farewells: &farewells, ..Step::default() }).await)
}

/// Steps until something changes.
async fn next_change(presence: &Presence) -> Change {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(change) = step(presence, Step::default()).await.changes.first() {
            return *change;
        }
        assert!(Instant::now() < end, "nothing changes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(presence: &Presence, id: i64) -> Found {
    presence.look(&[user(id)]).await.unwrap().found[0]
}

/// `a` and `b` are two gateways on one set, fresh for each run.
async fn suite(a: Presence, b: Presence) {
    // Nobody is there, and for a while nobody is taken for gone.
    let nobody = a.look(&[user(1), user(2)]).await.unwrap();
    assert!(!nobody.is_settled);
    assert!(nobody.found.iter().all(|found| !found.online && found.since == 0 && found.last_seen == 0));

    // The first heartbeat is a change, told once; further ones are none.
    let before = unix_ms();
    assert_eq!(hear(&a, &[heard(1, 0), heard(2, 50)]).await, [(1, true), (2, true)]);
    assert_eq!(hear(&b, &[heard(1, 0)]).await, []);
    let (one, two) = (look(&b, 1).await, look(&b, 2).await);
    assert!(one.online && two.online && one.version < two.version);
    assert!((before..=unix_ms()).contains(&one.since) && one.last_seen >= one.since);
    assert!((before - 60..one.last_seen).contains(&two.last_seen), "heard 50 ms ago");

    // An older heartbeat changes nothing.
    hear(&b, &[heard(1, 1_500)]).await;
    assert!(look(&a, 1).await.last_seen >= one.last_seen);

    // Counts.
    let counted = a.online_count(Duration::from_secs(60)).await.unwrap();
    assert!(counted.users == 2 && (before..=unix_ms()).contains(&counted.as_of), "{counted:?}");
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(a.online_count(Duration::from_millis(1)).await.unwrap().users, 0);
    assert_eq!(step(&b, Step::default()).await.online, 2);

    // A farewell lets the grace run; a heartbeat behind it undoes it, also one
    // that is heard of first; an older one does not.
    let now = unix_ms();
    assert_eq!(leave(&a, 1, now + 5).await, []);
    assert!(look(&a, 1).await.online);
    assert_eq!(look(&a, 1).await.last_seen, now + 5);
    while unix_ms() < now + 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    hear(&b, &[heard(1, 1_000)]).await;
    assert_eq!(look(&a, 1).await.last_seen, now + 5, "it is from before");
    hear(&b, &[heard(1, 0)]).await;
    assert!(look(&a, 1).await.last_seen > now + 5, "it is back");
    assert_eq!(leave(&a, 1, now + 6).await, [], "and that is too late");
    assert!(look(&a, 1).await.last_seen > now + 6);

    // Without the other, who goes on; nobody else is told.
    let left = unix_ms() + 1;
    leave(&a, 2, left).await;
    let gone = next_change(&b).await;
    assert_eq!((gone.user, gone.online, gone.since), (user(2), false, left));
    assert!(gone.version > two.version && unix_ms() >= left + RULES.grace_ms);
    assert_eq!(told(&step(&a, Step::default()).await), []);
    let found = look(&a, 2).await;
    assert_eq!((found.online, found.since, found.last_seen), (false, left, left));
    assert!(found.version >= gone.version);

    // Silence does it too, after the window; and back again, newer.
    let last = look(&a, 1).await.last_seen;
    let gone = next_change(&a).await;
    assert_eq!((gone.user, gone.online, gone.since), (user(1), false, last));
    assert!(unix_ms() >= last + RULES.window_ms);
    let back = step(&a, Step { heard: &[heard(1, 0)], ..Step::default() }).await;
    assert_eq!(told(&back), [(1, true)]);
    assert!(back.changes[0].version > gone.version && back.watching.is_empty());

    // Who watches is named with what there is to tell.
    step(&a, Step { watching: true, ..Step::default() }).await;
    let (stepped, seen) = b
        .step(Step { heard: &[heard(3, 0)], watching: true, look: &[user(3), user(9)], ..Step::default() })
        .await
        .unwrap();
    let mut watching = stepped.watching;
    watching.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(watching, [gateway("a"), gateway("b")]);
    assert_eq!(seen.found.iter().map(|found| found.online).collect::<Vec<_>>(), [true, false]);
    assert!(seen.is_settled);

    // Many at a time, in their order.
    let many: Vec<_> = (100..1_300).map(|id| heard(id, 0)).collect();
    assert_eq!(hear(&a, &many).await.len(), 1_200);
    let users: Vec<_> = (99..1_300).map(user).collect();
    let found = a.look(&users).await.unwrap().found;
    assert_eq!(found.iter().map(|found| found.user).collect::<Vec<_>>(), users);
    assert_eq!(found.iter().filter(|found| found.online).count(), 1_200);
    let mut gone = 0;
    while gone < 1_202 {
        next_change(&b).await;
        gone = 1_202 - usize::try_from(step(&a, Step::default()).await.online).unwrap();
    }
}

#[tokio::test]
async fn memory_conforms() {
    let shared = Arc::new(MemoryOnline::new(RULES));
    let view = |name| Presence::Memory(MemoryPresence::new(Arc::clone(&shared), gateway(name)));
    suite(view("a"), view("b")).await;
}

#[tokio::test]
async fn redis_conforms() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    let view =
        |name| Presence::Redis(RedisPresence::new(client.clone(), &TestRedis::keys(), gateway(name), RULES));
    suite(view("a"), view("b")).await;
}

#[tokio::test]
async fn what_is_lost_with_the_data_is_not_taken_for_gone() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    let presence = RedisPresence::new(client, &TestRedis::keys(), gateway("a"), RULES);
    let presence = Presence::Redis(presence);
    hear(&presence, &[heard(1, 0)]).await;
    let before = look(&presence, 1).await;
    while !presence.look(&[user(1)]).await.unwrap().is_settled {
        step(&presence, Step::default()).await;
    }
    let _: String = redis.query(&["FLUSHALL"]).await;
    let after = presence.look(&[user(1)]).await.unwrap();
    assert!(!after.is_settled && !after.found[0].online);
    hear(&presence, &[heard(2, 0)]).await;
    let after = presence.look(&[user(1)]).await.unwrap();
    assert!(!after.is_settled);
    assert!(after.found[0].version > before.version, "versions go on");
}
