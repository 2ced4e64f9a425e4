//! Who is counted when, with the time handed in.

mod conversion;

use super::*;
use crate::analytics::{Position, instant};
use crate::hub::{OutboxLimits, PeerIdentity};
use crate::presence::{Headcount, RedisPresence};
use crate::store::{Counting, EmbeddedStore, Left, RedisLedger};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef};

const DAY_MS: i64 = 24 * 3_600_000;
const LIMITS: OutboxLimits = OutboxLimits { bytes: 1 << 20, frames: 100 };

fn terms(zone: &str) -> Terms {
    Terms {
        zone: Zone::parse(zone).unwrap(),
        log_age: 9 * DAY_MS,
        log_count: 1_000_000,
        history_age: 400 * DAY_MS,
        every: 60_000,
        window: Duration::from_secs(180),
        silence: 90_000,
    }
}

struct Alone {
    census: Arc<Census>,
    _dir: tempfile::TempDir,
}

fn alone(zone: &str) -> Alone {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::Embedded(EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap().0);
    Alone { census: Census::new("gw-a", ledger, terms(zone), None), _dir: dir }
}

fn client(province: &str, city: &str) -> BTreeMap<String, String> {
    [("province", province), ("city", city)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn sighting(user: i64, client: &BTreeMap<String, String>, at: i64) -> Sighting<'_> {
    Sighting { user: UserId::new(user).ok(), install: None, client, address: None, at }
}

fn peer(user: i64) -> Arc<Peer> {
    let identity = PeerIdentity {
        conn: ConnId(user.unsigned_abs()),
        user: UserId::new(user).unwrap(),
        device: DeviceId::new("phone").unwrap(),
        expires_at: PeerIdentity::NEVER,
    };
    Arc::new(Peer::new(identity, 1, LIMITS))
}

async fn flush(census: &Census) {
    assert!(census.flush(unix_ms()).await);
    assert!(census.recorder.is_empty());
}

async fn total(census: &Census, day: &str) -> u64 {
    census.days(&[Day::parse(day).unwrap()], None).await.unwrap().remove(0).total
}

#[tokio::test]
async fn a_day_costs_one_entry_and_midnight_begins_another() {
    let Alone { census, .. } = &alone("Asia/Shanghai");
    let midnight = instant("2026-11-21T16:00:00Z").unwrap();
    let sz = client("Guangdong", "Shenzhen");
    for at in [midnight - 100_000, midnight - 1, midnight, midnight + 5] {
        census.seen(sighting(1, &sz, at));
    }
    flush(census).await;
    assert_eq!(census.ledger.read(Position::default(), 9).await.unwrap().entries.len(), 2);
    assert_eq!((total(census, "2026-11-21").await, total(census, "2026-11-22").await), (1, 1));
    let days = census.days(&[Day::parse("2026-11-22").unwrap()], Some(By::City)).await.unwrap();
    assert_eq!(days[0].places, [(Place::named(Some("Guangdong"), Some("Shenzhen")), 1)]);
}

/// Clocks are put back at the end of this day, which has 25 hours.
#[tokio::test]
async fn who_stays_over_midnight_counts_by_the_life_he_shows() {
    let Alone { census, .. } = &alone("Europe/Berlin");
    let midnight = census.zone().span(Day::parse("2026-10-25").unwrap()).1;
    assert_eq!(midnight, instant("2026-10-25T23:00:00Z").unwrap());
    let hub = Hub::new(LIMITS);
    let connected = [peer(1), peer(2)];
    connected.iter().for_each(|peer| drop(hub.register(peer)));
    for user in 1..=3 {
        census.seen(sighting(user, &client("Berlin", "Berlin"), midnight - 3_600_000));
    }
    // One has shown life since midnight; the other one did so an hour ago.
    census.stay(&connected[1], midnight - 1);
    connected[0].seen(monotonic_ms());
    census.walk(&hub, midnight + 90_000).await;
    flush(census).await;
    assert_eq!((total(census, "2026-10-25").await, total(census, "2026-10-26").await), (3, 2));
    let days = census.days(&[Day::parse("2026-10-26").unwrap()], Some(By::Province)).await.unwrap();
    assert_eq!(days[0].places, [(Place::named(Some("Berlin"), None), 2)], "where they were the day before");
    // Who ends now has been counted.
    census.stay(&connected[0], midnight + 95_000);
    assert!(census.recorder.is_empty());
}

#[tokio::test]
async fn a_past_day_is_counted_anew_from_the_log() {
    let Alone { census, .. } = &alone("UTC");
    let now = unix_ms();
    let today = census.zone().day(now);
    let yesterday = today.plus(-1);
    let (start, end) = census.zone().span(yesterday);
    let event = |install: &str, at: i64| {
        let text = format!(r#"{{"installId":"install-{install}","eventName":"open","eventTime":{at}}}"#);
        Event::parse(&text, now).unwrap()
    };
    let events = vec![event("1", start), event("2", end - 1), event("1", end - 1), event("3", end)];
    census.report(events, now).await.unwrap();
    let one = |daily: Daily| (daily.total, daily.version);
    let of = async |day| one(census.days(&[day], None).await.unwrap().remove(0));
    assert_eq!(of(yesterday).await, (2, 0));
    // Counted, and not in the log: it goes away.
    let stray = crate::store::ledger::Counted {
        day: yesterday,
        person: Person::User(UserId::new(7).unwrap()),
        place: Place::default(),
    };
    census.ledger.count(&[stray]).await.unwrap();
    assert_eq!(of(yesterday).await, (3, 0));
    assert_eq!(one(census.recalculate(yesterday, None, now).await.unwrap()), (2, 1));
    assert_eq!(one(census.recalculate(yesterday, Some(1), now).await.unwrap()), (2, 2));
    let stale = census.recalculate(yesterday, Some(1), now).await;
    assert!(matches!(stale, Err(RecalculateError::Stale(2))));
    assert!(matches!(census.recalculate(today, None, now).await, Err(RecalculateError::NotPast)));
    census.ledger.trim(now + 1_000, 1_000_000).await.unwrap();
    assert!(matches!(census.recalculate(yesterday, None, now).await, Err(RecalculateError::Gone)));
}

#[tokio::test]
async fn each_instant_has_one_sample_and_old_days_are_closed() {
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let own = GatewayRef { id: GatewayId::new("gw-a").unwrap(), epoch: Epoch(1) };
    let presence = Presence::Redis(RedisPresence::of_its_own(redis.client().await, own));
    let census = |name: &str| Census::new(name, Ledger::Redis(ledger.renamed(name)), terms("UTC"), None);
    let (one, other) = (census("gw-a"), census("gw-b"));
    let now = unix_ms();
    let minute = now - now.rem_euclid(60_000);
    let _: u64 = redis.query(&["ZADD", "presence:online_users", &now.to_string(), "1"]).await;
    let _: u64 = redis.query(&["ZADD", "presence:online_users", &(now - 200_000).to_string(), "2"]).await;
    let old = one.zone().day(now).plus(-10);
    let stray = crate::store::ledger::Counted {
        day: old,
        person: Person::User(UserId::new(7).unwrap()),
        place: Place::default(),
    };
    one.ledger.count(&[stray]).await.unwrap();
    let counted = one.headcount(&presence).await.unwrap();
    assert_eq!(counted.users, 1);
    let counted = Headcount { as_of: now, ..counted };
    assert!(one.tick(counted, &mut None).await.unwrap());
    assert!(!other.tick(counted, &mut None).await.unwrap(), "the turn is another's");
    let _: u64 = redis.query(&["DEL", "presence.turn"]).await;
    let later = Headcount { users: 7, as_of: minute + 59_999 };
    assert!(other.tick(later, &mut None).await.unwrap());
    let samples = one.ledger.samples(0, i64::MAX).await.unwrap();
    assert_eq!(samples.iter().map(|sample| (sample.at, sample.online)).collect::<Vec<_>>(), [(minute, 1)]);
    let people: Vec<String> = redis.query(&["KEYS", "presence.dau:*:h*"]).await;
    assert_eq!(people, Vec::<String>::new());
    assert_eq!(total(&one, &old.to_string()).await, 1);
    let span = Span::new(minute - 120_000, minute + 60_000, 60_000, 60_000).unwrap();
    let history = one.history(span).await.unwrap();
    assert_eq!(history.steps.iter().map(|step| step.samples).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(history.peak.map(|peak| (peak.at, peak.online)), Some((minute, 1)));
}

/// Years ahead: by its own clock nobody was heard lately, and no time has come.
#[tokio::test]
async fn a_gateway_whose_clock_is_wrong_counts_by_that_of_redis() {
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let now = unix_ms();
    crate::types::simulated::begin();
    assert!(unix_ms() - now > 5 * 365 * DAY_MS);
    let own = GatewayRef { id: GatewayId::new("gw-a").unwrap(), epoch: Epoch(1) };
    let presence = Presence::Redis(RedisPresence::of_its_own(redis.client().await, own));
    let _: u64 = redis.query(&["ZADD", "presence:online_users", &now.to_string(), "1"]).await;
    let _: u64 = redis.query(&["ZADD", "presence:online_users", &(now - 185_000).to_string(), "2"]).await;
    let terms = Terms { every: 1_000, ..terms("UTC") };
    let census = Census::new("gw-a", Ledger::Redis(ledger), terms, None);
    let sampled = async {
        loop {
            let samples = census.ledger.samples(0, i64::MAX).await.unwrap();
            if let [first, _, ..] = samples.as_slice() {
                return *first;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let first = tokio::select! {
        () = census.keep_up(&presence) => unreachable!("it goes on for ever"),
        first = tokio::time::timeout(Duration::from_secs(30), sampled) => first.unwrap(),
    };
    assert!((now..now + 30_000).contains(&first.at) && first.at % 1_000 == 0, "{first:?}");
    assert_eq!(first.online, 1);
}

/// The store is away for a while: what waits is written later, once.
#[tokio::test]
async fn an_outage_costs_nobody_his_day() {
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Exact).await;
    let census = Census::new("gw-a", Ledger::Redis(ledger), terms("UTC"), None);
    let unsaid = BTreeMap::new();
    let now = instant("2026-11-21T10:00:00Z").unwrap();
    (1..=100).for_each(|user| census.seen(sighting(user, &unsaid, now)));
    redis.signal(nix::sys::signal::Signal::SIGSTOP);
    assert!(!census.flush(unix_ms()).await);
    assert_eq!(census.recorder.waiting(), 100);
    redis.signal(nix::sys::signal::Signal::SIGCONT);
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !census.flush(unix_ms()).await {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What was not answered was done all the same, and is not done twice.
    let log: u64 = redis.query(&["XLEN", "presence.events"]).await;
    assert_eq!((log, total(&census, "2026-11-21").await), (100, 100));
    assert!(census.recorder.is_empty());
}

/// What the log will not have is dropped, and is there after the next sign of
/// life; the number of the day does not wait for it.
#[tokio::test]
async fn who_could_not_be_recorded_is_recorded_at_his_next_sign_of_life() {
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Exact).await;
    let census = Census::new("gw-a", Ledger::Redis(ledger), terms("UTC"), None);
    let unsaid = BTreeMap::new();
    let now = instant("2026-11-21T10:00:00Z").unwrap();
    let _: String = redis.query(&["SET", "presence.events", "no stream"]).await;
    census.seen(sighting(1, &unsaid, now));
    flush(&census).await;
    assert!(census.recorder.is_empty(), "it is not tried again by itself");
    assert_eq!(census.carry().len(), 0, "nor taken for recorded after a hot restart");
    assert_eq!(total(&census, "2026-11-21").await, 1, "counted beside the log");
    let _: u64 = redis.query(&["DEL", "presence.events"]).await;
    for at in [now + 1, now + 2] {
        census.seen(sighting(1, &unsaid, at));
    }
    assert_eq!(census.recorder.waiting(), 1);
    flush(&census).await;
    assert_eq!(total(&census, "2026-11-21").await, 1, "not twice");
    let log: u64 = redis.query(&["XLEN", "presence.events"]).await;
    assert_eq!(log, 1);
}

#[tokio::test]
async fn a_hundred_thousand_people_are_counted_within_the_error() {
    const PEOPLE: i64 = 100_000;
    let (ledger, redis) = RedisLedger::of_its_own(Counting::Estimated).await;
    let census = Census::new("gw-a", Ledger::Redis(ledger), terms("UTC"), None);
    let now = instant("2026-11-21T10:00:00Z").unwrap();
    let provinces: Vec<_> = (0..30).map(client_of).collect();
    for user in 1..=PEOPLE {
        let province = &provinces[usize::try_from(user % 30).unwrap()];
        census.seen(sighting(user, province, now));
    }
    assert_eq!(census.recorder.waiting(), 100_000);
    while !census.recorder.is_empty() {
        assert!(census.flush(now).await);
    }
    let days = census.days(&[Day::parse("2026-11-21").unwrap()], Some(By::Province)).await.unwrap();
    let error = days[0].total.abs_diff(100_000);
    // Three standard errors: what is estimated here is always the same.
    assert!(error <= 2_430, "{error}");
    assert_eq!(days[0].places.len(), 30);
    let bytes: u64 = redis.query(&["MEMORY", "USAGE", "presence.dau:2026-11-21:h"]).await;
    let log: u64 = redis.query(&["MEMORY", "USAGE", "presence.events", "SAMPLES", "0"]).await;
    println!("estimated {} of {PEOPLE}; {bytes} bytes, log {} bytes each", days[0].total, log / 100_000);
    assert!(bytes < 16_500, "{bytes}");
}

fn client_of(n: usize) -> BTreeMap<String, String> {
    client(&format!("province {n}"), &format!("city {n}"))
}
