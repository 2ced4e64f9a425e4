//! `presence.dau` is changed.

use super::*;
use crate::census::conversion::Conversion;

/// The way of counting is changed in the middle of a day, and back.
#[tokio::test]
async fn open_days_are_counted_anew_when_they_are_to_be_counted_otherwise() {
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let now = unix_ms();
    let zone = Zone::utc();
    let (today, yesterday) = (zone.day(now), zone.day(now).plus(-1));
    let of = |counting| ledger.recounted(counting);
    let census = |counting| Census::new("gw-a", Ledger::Redis(of(counting)), terms("UTC"), None);
    let before = census(Counting::Estimated);
    let sz = client("Guangdong", "Shenzhen");
    for (user, at) in [(1, now), (2, now), (3, zone.span(yesterday).0)] {
        before.seen(sighting(user, &sz, at));
        flush(&before).await;
    }
    for (round, counting) in [Counting::Exact, Counting::Estimated, Counting::Exact].into_iter().enumerate() {
        let after = census(counting);
        // Somebody is there before it is noticed.
        let user = 10 + i64::try_from(round).unwrap();
        after.seen(sighting(user, &sz, now));
        flush(&after).await;
        let conversion = &mut Conversion::default();
        assert!(!after.convert(conversion, now).await.unwrap());
        let days = after.days(&[yesterday, today], Some(By::City)).await.unwrap();
        let told = |day: &Daily| (day.total, day.places[0].1, day.is_estimated);
        let is_estimated = counting == Counting::Estimated;
        let came = 3 + u64::try_from(round).unwrap();
        assert_eq!(
            days.iter().map(told).collect::<Vec<_>>(),
            [(1, 1, is_estimated), (came, came, is_estimated)]
        );
        let version = days[1].version;
        assert!(after.convert(conversion, now).await.unwrap(), "once");
        assert_eq!(after.days(&[today], None).await.unwrap()[0].version, version);
    }
    let estimates: Vec<String> = redis.query(&["KEYS", "presence.dau:*:h*"]).await;
    assert_eq!(estimates, Vec::<String>::new());
}

/// The one before, who has seen some people today, and one who counts by sets.
async fn changed(ledger: &RedisLedger, people: i64, now: i64) -> [Arc<Census>; 2] {
    let census =
        |counting| Census::new("gw-a", Ledger::Redis(ledger.recounted(counting)), terms("UTC"), None);
    let before = census(Counting::Estimated);
    come(&before, 1..=people, now).await;
    [before, census(Counting::Exact)]
}

async fn come(census: &Census, users: std::ops::RangeInclusive<i64>, now: i64) {
    let unsaid = BTreeMap::new();
    users.for_each(|user| census.seen(sighting(user, &unsaid, now)));
    flush(census).await;
}

#[tokio::test]
async fn what_is_counted_otherwise_after_a_first_look_is_found_at_a_later_one() {
    let now = unix_ms();
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let [before, after] = changed(&ledger, 2, now).await;
    let conversion = &mut Conversion::default();
    for last in 3..=5 {
        assert!(!after.convert(conversion, now).await.unwrap());
        come(&before, last..=last, now).await;
    }
    let own = GatewayRef { id: GatewayId::new("gw-a").unwrap(), epoch: Epoch(1) };
    let presence = Presence::Redis(RedisPresence::of_its_own(redis.client().await, own));
    let today = after.zone().day(now);
    let all = async {
        while after.days(&[today], None).await.unwrap()[0].total < 5
            || !redis.query::<Vec<String>>(&["KEYS", "presence.dau:*:h*"]).await.is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = after.keep_converting(&presence, Duration::from_millis(50)) => unreachable!("it never ends"),
        all = tokio::time::timeout(Duration::from_secs(30), all) => all.unwrap(),
    }
    assert!(after.convert(conversion, now).await.unwrap());
}

#[tokio::test]
async fn a_recount_that_fails_leaves_nothing_behind_and_removes_nothing() {
    let now = unix_ms();
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let [before, after] = changed(&ledger, 3, now).await;
    let today = after.zone().day(now).to_string();
    let places = format!("presence.dau:{today}:places");
    let _: String = redis.query(&["SET", &places, "no hash"]).await;
    let conversion = &mut Conversion::default();
    for _ in 0..3 {
        assert!(after.convert(conversion, now).await.is_err());
    }
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "presence.dau:*:new:*"]).await.len(), 0);
    assert_eq!(total(&before, &today).await, 3);
    let _: u64 = redis.query(&["DEL", &places]).await;
    assert!(!after.convert(conversion, now).await.unwrap());
    assert!(after.convert(conversion, now).await.unwrap());
    assert_eq!(
        (total(&after, &today).await, redis.query::<Vec<String>>(&["KEYS", "presence.dau:*:h*"]).await.len()),
        (3, 0)
    );
}

/// Somebody counts the day anew in the way it had, while it is converted.
#[tokio::test]
async fn numbers_that_have_another_version_by_now_are_not_removed() {
    let now = unix_ms();
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let [before, after] = changed(&ledger, 3, now).await;
    let today = after.zone().day(now);
    let conversion = &mut Conversion::default();
    let refused = std::cell::Cell::new(0);
    let meddling = async {
        while refused.get() < 3 {
            before.recount(today, None, false).await.ok();
        }
    };
    let converting = async {
        while refused.get() < 3 {
            let stale = matches!(after.recount(today, None, true).await, Err(RecalculateError::Stale(_)));
            refused.set(refused.get() + i32::from(stale));
            let is_left = after.ledger.counted_otherwise(&[today]).await.unwrap() == [today];
            assert!(is_left || !stale, "they are all there is");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(meddling, converting) })
        .await
        .unwrap();
    while !after.convert(conversion, now).await.unwrap() {}
    assert_eq!(total(&after, &today.to_string()).await, 3);
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "presence.dau:*:h*"]).await.len(), 0);
}

/// Everybody was away for so long that nobody could close the day.
#[tokio::test]
async fn a_day_is_closed_as_it_was_counted() {
    let now = unix_ms();
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let [before, after] = changed(&ledger, 3, now).await;
    let sz = client("Guangdong", "Shenzhen");
    before.seen(sighting(4, &sz, now));
    flush(&before).await;
    // A late one, in the other way.
    come(&after, 5..=5, now).await;
    let today = after.zone().day(now);
    after.ledger.close_day(today).await.unwrap();
    let day = after.days(&[today], Some(By::City)).await.unwrap().remove(0);
    assert_eq!((day.total, day.places[0].1, day.is_estimated), (4, 1, true));
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "presence.dau:*"]).await.len(), 1, "the numbers");
}
