//! The suite every backend of the ledger passes.

use super::*;
use crate::analytics::{InstallId, PAST_MS, SEEN, Zone};
use crate::redis::testing::TestRedis;
use crate::store::{Counting, Left};
use crate::types::{UserId, unix_ms};

const DAY_MS: i64 = 24 * 3_600_000;

fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

fn place(province: &str, city: &str) -> Place {
    Place { province: province.to_owned(), city: city.to_owned() }
}

/// Somebody is seen.
fn seen(user: i64, at: i64, place: Place) -> Entry {
    Entry {
        name: SEEN.to_owned(),
        user: UserId::new(user).ok(),
        install: None,
        at,
        received_at: at,
        id: String::new(),
        place,
        properties: String::new(),
    }
}

/// Something is reported.
fn event(install: &str, id: &str, at: i64) -> Entry {
    Entry {
        name: "app_open".to_owned(),
        user: None,
        install: Some(InstallId::new(install).unwrap()),
        id: id.to_owned(),
        properties: r#"{"n": 1}"#.to_owned(),
        ..seen(1, at, Place::default())
    }
}

fn items(entries: &[Entry], day: Day) -> Vec<Item> {
    entries.iter().map(|entry| Item { entry: entry.clone(), day }).collect()
}

async fn append(ledger: &Ledger, entries: &[Entry], day: Day, now: i64) -> Recorded {
    ledger.append(Batch { items: &items(entries, day), writer: None, now }).await.unwrap()
}

async fn total(ledger: &Ledger, day: Day) -> (u64, u64) {
    let daily = ledger.days(&[day], None).await.unwrap().remove(0);
    (daily.total, daily.version)
}

async fn suite(ledger: Ledger, is_exact: bool) {
    ids(&ledger).await;
    log(&ledger).await;
    batches(&ledger).await;
    numbers(&ledger, is_exact).await;
    midnight(&ledger).await;
    recounts(&ledger).await;
    closing(&ledger).await;
    samples(&ledger).await;
    sinks(&ledger).await;
    trimming(&ledger).await;
}

async fn ids(ledger: &Ledger) {
    let (now, day) = (unix_ms(), day("2020-01-01"));
    assert_eq!(ledger.end().await.unwrap(), Position::default());
    let one = event("install-1", "e1", now);
    let recorded = |accepted, duplicates| Recorded { accepted, duplicates };
    assert_eq!(append(ledger, &[], day, now).await, recorded(0, 0));
    assert_eq!(append(ledger, &[one.clone(), one.clone()], day, now).await, recorded(1, 1));
    // The same id some days later, and with other words: still the same event.
    let again = Entry { at: now + 5, name: "other".to_owned(), ..one.clone() };
    assert_eq!(append(ledger, &[again], day, now + PAST_MS - 1_000).await, recorded(0, 1));
    assert_eq!(
        append(ledger, std::slice::from_ref(&one), day, now - PAST_MS).await,
        recorded(0, 1),
        "a slow clock"
    );
    assert_eq!(append(ledger, &[event("install-2", "e1", now)], day, now).await, recorded(1, 0));
    let nameless = event("install-1", "", now);
    assert_eq!(append(ledger, &[nameless.clone(), nameless], day, now).await, recorded(2, 0));
    assert_eq!(append(ledger, &[one], day, now + 3 * PAST_MS).await, recorded(1, 0), "long forgotten");
    assert_eq!(total(ledger, day).await, (2, 0));
}

async fn log(ledger: &Ledger) {
    let (now, day) = (unix_ms(), day("2020-01-02"));
    let from = ledger.end().await.unwrap();
    let place = place("Guangdong", "深圳");
    let sent = [seen(42, now, place.clone()), event("install-3", "e1", now - 7), seen(43, now, place)];
    append(ledger, &sent, day, now).await;
    let all = ledger.read(from, 10).await.unwrap();
    let entries: Vec<_> = all.entries.iter().map(|(_, entry)| entry.clone()).collect();
    assert_eq!((entries.as_slice(), all.has_more), (&sent[..], false));
    assert!(all.entries.is_sorted_by(|a, b| a.0 < b.0));
    let last = all.entries[2].0;
    assert_eq!((ledger.end().await.unwrap(), Position::parse(&last.to_string())), (last, Some(last)));
    let page = ledger.read(from, 2).await.unwrap();
    assert_eq!((page.entries.as_slice(), page.has_more), (&all.entries[..2], true));
    let rest = ledger.read(page.entries[1].0, 2).await.unwrap();
    assert_eq!((rest.entries.as_slice(), rest.has_more), (&all.entries[2..], false));
    // From an instant on.
    let since = Position::before(i64::try_from(all.entries[0].0.ms).unwrap());
    assert!(ledger.read(since, 100).await.unwrap().entries.contains(&all.entries[0]));
    // More than one call of the store, and all of them.
    let many: Vec<_> = (0..600).map(|n| event("install-4", &format!("m{n}"), now)).collect();
    assert_eq!(append(ledger, &many, day, now).await.accepted, 600);
    let (mut after, mut read) = (last, 0);
    loop {
        let page = ledger.read(after, 100).await.unwrap();
        read += page.entries.len();
        after = page.entries.last().unwrap().0;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(read, 600);
}

/// Who reads the log while it is written misses nothing, though a batch is
/// many rows, and now and then a table is finished in the middle of one.
async fn following(ledger: &Ledger) {
    const BATCHES: i64 = 60;
    const EACH: i64 = 300;
    let (now, day) = (unix_ms(), day("2020-01-01"));
    let properties = format!(r#"{{"pad": "{}"}}"#, "x".repeat(4_000));
    let mut after = ledger.end().await.unwrap();
    let write = async {
        for batch in 0..BATCHES {
            let entries = (batch * EACH..(batch + 1) * EACH)
                .map(|n| Entry { at: n, ..event("install-7", &format!("followed-{n}"), now) })
                .map(|entry| Entry { properties: properties.clone(), ..entry });
            append(ledger, &entries.collect::<Vec<_>>(), day, now).await;
        }
    };
    let follow = async {
        let mut next = 0;
        while next < BATCHES * EACH {
            for (at, entry) in ledger.read(after, 1_000).await.unwrap().entries {
                assert_eq!(entry.at, next, "behind {after}");
                (after, next) = (at, next + 1);
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), async { tokio::join!(write, follow) })
        .await
        .unwrap();
}

async fn batches(ledger: &Ledger) {
    let (now, day) = (unix_ms(), day("2020-01-03"));
    let from = ledger.end().await.unwrap();
    let sent = items(&(1..=300).map(|user| seen(user, now, Place::default())).collect::<Vec<_>>(), day);
    let batch = |number| Batch { items: &sent, writer: Some(("gw-a", number)), now };
    assert_eq!(ledger.append(batch(7)).await.unwrap().accepted, 300);
    assert_eq!(ledger.append(batch(7)).await.unwrap(), Recorded { accepted: 0, duplicates: 300 });
    assert_eq!(ledger.read(from, 1_000).await.unwrap().entries.len(), 300);
    assert_eq!(ledger.append(Batch { writer: Some(("gw-b", 7)), ..batch(7) }).await.unwrap().accepted, 300);
    assert_eq!(ledger.append(batch(8)).await.unwrap().accepted, 300);
    let daily = ledger.days(&[day], None).await.unwrap().remove(0);
    assert!(daily.total.abs_diff(300) <= 9, "{daily:?}");
}

async fn numbers(ledger: &Ledger, is_exact: bool) {
    let (now, first, second) = (unix_ms(), day("2020-02-01"), day("2020-02-02"));
    let (sz, gz, hz) =
        (place("Guangdong", "Shenzhen"), place("Guangdong", "Guangzhou"), place("Zhejiang", "Hangzhou"));
    let came = [
        seen(1, now, sz.clone()),
        seen(1, now, gz.clone()),
        seen(2, now, sz.clone()),
        seen(3, now, hz.clone()),
        seen(4, now, Place::default()),
        event("install-1", "", now),
    ];
    append(ledger, &came, first, now).await;
    append(ledger, &came[..1], second, now).await;
    let by = |by| async move { ledger.days(&[first, second], Some(by)).await.unwrap() };
    let days = by(By::Province).await;
    assert_eq!((days[0].total, days[1].total), (5, 1));
    assert_eq!(days[0].is_estimated, !is_exact);
    let province = |name: &str| place(name, "");
    assert_eq!(days[0].places, [(province("Guangdong"), 2), (province("Zhejiang"), 1)]);
    assert_eq!(days[1].places, [(province("Guangdong"), 1)]);
    assert_eq!(by(By::City).await[0].places, [(sz, 2), (gz, 1), (hz, 1)]);
    // Nobody is counted twice, however often he comes.
    append(ledger, &came, first, now).await;
    assert_eq!(total(ledger, first).await, (5, 0));
    assert_eq!(ledger.days(&[], None).await.unwrap(), []);
    let nobody = ledger.days(&[day("1999-01-01")], Some(By::City)).await.unwrap().remove(0);
    assert_eq!((nobody.total, nobody.places), (0, vec![]));
}

/// A connection on either side of midnight, where clocks are changed.
async fn midnight(ledger: &Ledger) {
    let zone = Zone::parse("Europe/Berlin").unwrap();
    let (start, end) = zone.span(day("2020-03-29"));
    assert_eq!(end - start, DAY_MS - 3_600_000);
    for (user, at) in [(1, start - 1), (1, start), (2, end - 1), (1, end - 1), (3, end)] {
        append(ledger, &[seen(user, at, Place::default())], zone.day(at), at).await;
    }
    let days = [day("2020-03-28"), day("2020-03-29"), day("2020-03-30")];
    let totals: Vec<_> = ledger.days(&days, None).await.unwrap().iter().map(|daily| daily.total).collect();
    assert_eq!(totals, [1, 2, 1]);
}

async fn recounts(ledger: &Ledger) {
    let (now, day) = (unix_ms(), day("2020-04-01"));
    let (sz, hz) = (place("Guangdong", "Shenzhen"), place("Zhejiang", "Hangzhou"));
    append(ledger, &[seen(1, now, sz.clone()), seen(2, now, hz.clone())], day, now).await;
    let counted = |user: i64, place: &Place| Counted {
        day,
        person: Person::User(UserId::new(user).unwrap()),
        place: place.clone(),
    };
    let (one, other) = (ledger.begin_recount(day).await.unwrap(), ledger.begin_recount(day).await.unwrap());
    assert_eq!((one.version, other.version), (0, 0));
    ledger.recount(&one, &[counted(1, &sz), counted(3, &sz)]).await.unwrap();
    ledger.recount(&other, &[counted(9, &hz)]).await.unwrap();
    ledger.recount(&one, &[counted(4, &sz), counted(1, &sz)]).await.unwrap();
    assert_eq!(total(ledger, day).await, (2, 0), "nothing is told before it is done");
    assert_eq!(ledger.finish_recount(&one).await.unwrap(), Recounted::Done(1));
    let told = ledger.days(&[day], Some(By::City)).await.unwrap().remove(0);
    assert_eq!((told.total, told.version, told.places), (3, 1, vec![(sz.clone(), 3)]));
    assert_eq!(ledger.finish_recount(&other).await.unwrap(), Recounted::Stale(1));
    assert_eq!(total(ledger, day).await, (3, 1));
    // Who comes afterwards counts, and who was counted does not again.
    ledger.count(&[counted(5, &hz), counted(4, &sz)]).await.unwrap();
    assert_eq!(total(ledger, day).await, (4, 1));
    let empty = ledger.begin_recount(day).await.unwrap();
    assert_eq!(ledger.finish_recount(&empty).await.unwrap(), Recounted::Done(2));
    let told = ledger.days(&[day], Some(By::Province)).await.unwrap().remove(0);
    assert_eq!((told.total, told.version, told.places), (0, 2, vec![]));
}

async fn closing(ledger: &Ledger) {
    let (now, closed) = (unix_ms(), day("2020-05-01"));
    let sz = place("Guangdong", "Shenzhen");
    append(ledger, &[seen(1, now, sz.clone()), seen(2, now, Place::default())], closed, now).await;
    let by = async |by| ledger.days(&[closed], Some(by)).await.unwrap().remove(0);
    let before = (by(By::City).await, by(By::Province).await);
    for _ in 0..2 {
        ledger.close_day(closed).await.unwrap();
        assert_eq!((by(By::City).await, by(By::Province).await), before);
    }
    ledger.close_day(day("2020-05-02")).await.unwrap();
    // It can be counted anew all the same.
    let recount = ledger.begin_recount(closed).await.unwrap();
    let counted = Counted { day: closed, person: Person::User(UserId::new(7).unwrap()), place: sz };
    ledger.recount(&recount, &[counted]).await.unwrap();
    assert_eq!(ledger.finish_recount(&recount).await.unwrap(), Recounted::Done(1));
    assert_eq!(total(ledger, closed).await, (1, 1));
    ledger.close_day(closed).await.unwrap();
    assert_eq!(total(ledger, closed).await, (1, 1));
}

async fn samples(ledger: &Ledger) {
    let sample = |minute: i64, online| Sample { at: minute * 60_000, online };
    assert_eq!(ledger.samples(0, i64::MAX).await.unwrap(), []);
    for minute in [1, 2, 4] {
        assert!(ledger.sample(sample(minute, 10)).await.unwrap());
    }
    for repeated in [1, 4] {
        assert!(!ledger.sample(sample(repeated, 99)).await.unwrap(), "the first one stays");
    }
    let all = [sample(1, 10), sample(2, 10), sample(4, 10)];
    assert_eq!(ledger.samples(0, i64::MAX).await.unwrap(), all);
    assert_eq!(ledger.samples(60_000, 240_000).await.unwrap(), all[..2]);
    assert_eq!(ledger.samples(60_001, 240_001).await.unwrap(), all[1..]);
    assert_eq!(ledger.forget(120_000, day("2000-01-01")).await.unwrap(), 1);
    assert_eq!(ledger.samples(0, i64::MAX).await.unwrap(), all[1..]);
}

async fn sinks(ledger: &Ledger) {
    let at = |ms, n| Position { ms, n };
    assert_eq!(ledger.sunk("elsewhere").await.unwrap(), Position::default());
    for (set, now) in [(at(9, 2), at(9, 2)), (at(9, 1), at(9, 2)), (at(10, 0), at(10, 0))] {
        ledger.set_sunk("elsewhere", set).await.unwrap();
        assert_eq!(ledger.sunk("elsewhere").await.unwrap(), now);
    }
    assert_eq!(ledger.sunk("another").await.unwrap(), Position::default());
}

async fn trimming(ledger: &Ledger) {
    let all = ledger.read(Position::default(), 10_000).await.unwrap().entries;
    assert_eq!(ledger.trimmed().await.unwrap(), Position::default());
    assert_eq!(ledger.trim(0, 1_000_000).await.unwrap(), 0);
    let most = all.len() - 5;
    let most = u64::try_from(most).unwrap();
    assert_eq!(ledger.trim(0, most).await.unwrap(), 5);
    let left = ledger.read(Position::default(), 10_000).await.unwrap().entries;
    assert_eq!(left, all[5..]);
    let last = i64::try_from(all[all.len() - 1].0.ms).unwrap();
    assert_eq!(ledger.trim(last + 1, 1_000_000).await.unwrap(), most);
    assert_eq!(ledger.read(Position::default(), 10).await.unwrap(), LogPage::default());
    assert!(ledger.trimmed().await.unwrap() >= all[all.len() - 1].0);
    // The next one is behind all that were.
    append(ledger, &[seen(1, last, Place::default())], day("2020-01-01"), last).await;
    let next = ledger.read(all[all.len() - 1].0, 10).await.unwrap().entries;
    assert_eq!(next.len(), 1);
}

#[tokio::test]
async fn embedded_conforms() {
    let dir = tempfile::tempdir().unwrap();
    suite(Ledger::Embedded(EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0), true).await;
}

#[tokio::test]
async fn redis_conforms_with_estimates() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    suite(Ledger::Redis(RedisLedger::new(client, TestRedis::keys(), Counting::Estimated, 1_000)), false)
        .await;
    let stream: u64 = redis.query(&["XLEN", "presence.events"]).await;
    assert_eq!(stream, 1);
}

#[tokio::test]
async fn redis_conforms_with_sets() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    suite(Ledger::Redis(RedisLedger::new(client, TestRedis::keys(), Counting::Exact, 1_000)), true).await;
}

#[tokio::test]
async fn embedded_can_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    following(&Ledger::Embedded(EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0)).await;
}

#[tokio::test]
async fn redis_can_be_followed() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    following(&Ledger::Redis(RedisLedger::new(client, TestRedis::keys(), Counting::Estimated, 1_000))).await;
}

#[tokio::test]
async fn one_gateway_at_a_time_has_the_turn() {
    let redis = TestRedis::start();
    let client = redis.client().await;
    let ledger =
        || Ledger::Redis(RedisLedger::new(client.clone(), TestRedis::keys(), Counting::Exact, 1_000));
    let (one, other) = (ledger(), ledger());
    assert!(one.takes_turn(60_000).await.unwrap());
    assert!(!other.takes_turn(60_000).await.unwrap());
    assert!(one.takes_turn(1).await.unwrap());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !other.takes_turn(60_000).await.unwrap() {
        assert!(std::time::Instant::now() < end);
    }
    assert!(!one.takes_turn(60_000).await.unwrap());
}

#[tokio::test]
async fn embedded_keeps_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0;
    let ledger = Ledger::Embedded(store.clone());
    let (now, day) = (unix_ms(), day("2026-11-21"));
    append(&ledger, &[event("install-1", "e1", now), seen(1, now, Place::default())], day, now).await;
    ledger.sample(Sample { at: 60_000, online: 3 }).await.unwrap();
    let before = ledger.read(Position::default(), 10).await.unwrap();
    store.close().await;
    let ledger = Ledger::Embedded(EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0);
    assert_eq!(ledger.read(Position::default(), 10).await.unwrap(), before);
    assert_eq!(append(&ledger, &[event("install-1", "e1", now)], day, now).await.duplicates, 1);
    assert_eq!(total(&ledger, day).await, (2, 0));
    assert_eq!(ledger.samples(0, i64::MAX).await.unwrap().len(), 1);
}
