//! Who comes: gathers it from connections and reports, has it counted, and
//! answers for it.
//!
//! - [`Census::seen`]: somebody is here. The first time of a day it is an
//!   entry of the log, written behind, once a second or once there are
//!   enough for a batch; after that it is one look into a map. Nothing is done
//!   for a heartbeat: who stays over midnight is found by one walk through the
//!   connections ([`Census::stay`]).
//! - [`Census::report`]: events, durable when it returns.
//! - [`Census::recalculate`]: a past day counted anew from the log.
//! - Once a minute one gateway of all takes a sample of how many are online,
//!   and removes what is past its time (`upkeep`).
//! - After a change of `presence.dau` young days are counted anew (`conversion`).
//!
//! Every queue is bounded and every drop is counted. Called by `session`,
//! `admin` and `gateway`.

mod conversion;
mod geo;
mod recalculate;
mod recorder;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use geo::Geo;
pub(crate) use recalculate::RecalculateError;

use self::recorder::{Flushed, Recorder};
use crate::analytics::{
    By, Daily, Day, Entry, Event, History, InstallId, Item, Person, Place, Places, SEEN, Seen, Span, Visit,
    Zone, rollup,
};
use crate::hub::{Hub, Peer};
use crate::presence::Presence;
use crate::store::StoreError;
use crate::store::ledger::{Batch, Ledger, Recorded};
use crate::task::spawn_core;
use crate::telemetry::metrics;
use crate::types::{UserId, monotonic_ms, unix_ms};

/// Connections looked at in one go after midnight.
const CROWD: usize = 1_000;
/// People of one record of a state that is handed over.
const CARRIED: usize = 100_000;
/// Entries that wait above which those after midnight wait, too.
const CROWDED: u64 = 100_000;
/// Pause between two of these.
const PACE: Duration = Duration::from_millis(10);

/// What the configuration says of it.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Where days begin and end.
    pub zone: Zone,
    /// Age at which entries of the log are removed, ms.
    pub log_age: i64,
    /// Most entries of the log.
    pub log_count: u64,
    /// Age at which samples and daily numbers are removed, ms.
    pub history_age: i64,
    /// Time between two samples, ms.
    pub every: i64,
    /// Who has shown life within this is online.
    pub window: Duration,
    /// After which silence a connection is ended, ms: by then everybody who is
    /// still connected after midnight has shown it.
    pub silence: i64,
}

/// Somebody is here.
#[derive(Debug)]
pub(crate) struct Sighting<'a> {
    /// Who, if he is signed in.
    pub user: Option<UserId>,
    /// Else the installation.
    pub install: Option<InstallId>,
    /// What the client says of itself; `province` and `city` are used.
    pub client: &'a BTreeMap<String, String>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// When, unix ms.
    pub at: i64,
}

/// People who were seen on a day in one place, on their way to another
/// process.
#[derive(Debug)]
pub(crate) struct CarriedPeople {
    /// YYYY-MM-DD.
    pub day: String,
    /// Empty = not known.
    pub province: String,
    /// The same.
    pub city: String,
    /// Their numbers.
    pub people: Vec<u64>,
}

/// See above. One per gateway.
#[derive(Debug)]
pub(crate) struct Census {
    ledger: Ledger,
    terms: Terms,
    geo: Option<Geo>,
    seen: Mutex<Seen>,
    places: Mutex<Places>,
    recorder: Recorder,
}

impl Census {
    /// Of the gateway of this name, over `ledger`.
    #[must_use]
    pub(crate) fn new(gateway: &str, ledger: Ledger, terms: Terms, geo: Option<Geo>) -> Arc<Self> {
        let recorder = Recorder::new(gateway);
        let (seen, places) = (Mutex::default(), Mutex::default());
        Arc::new(Self { ledger, terms, geo, seen, places, recorder })
    }

    /// Starts what it does by itself, until `stop`.
    pub(crate) fn start(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        presence: &Arc<Presence>,
        stop: &CancellationToken,
    ) {
        let census = Arc::clone(self);
        spawn_core("census", stop, async move { census.keep_recording().await });
        let (census, all) = (Arc::clone(self), Arc::clone(presence));
        spawn_core("census upkeep", stop, async move { census.keep_up(&all).await });
        let (census, all) = (Arc::clone(self), Arc::clone(presence));
        spawn_core("census conversion", stop, async move {
            census.keep_converting(&all, conversion::PAUSE).await;
        });
        let (census, here) = (Arc::clone(self), Arc::clone(hub));
        spawn_core("census days", stop, async move { census.keep_days(&here).await });
    }

    /// Time between two samples, ms.
    #[must_use]
    pub(crate) fn every(&self) -> i64 {
        self.terms.every
    }

    /// Where days begin and end.
    #[must_use]
    pub(crate) fn zone(&self) -> &Zone {
        &self.terms.zone
    }

    /// Somebody is here: he counts for the day. Cheap where he was before.
    pub(crate) fn seen(&self, sighting: Sighting<'_>) {
        let Sighting { user, install, client, address, at } = sighting;
        let Some(person) = Person::of(user, install.clone()) else { return };
        let day = self.terms.zone.day(at);
        let named = |key: &str| client.get(key).map(String::as_str);
        let mut place = Place::named(named("province"), named("city"));
        let is_placed = !place.is_unknown() || self.geo.is_some() && address.is_some();
        if self.seen.lock().knows(day, &person, is_placed) {
            return;
        }
        if place.is_unknown()
            && let (Some(geo), Some(address)) = (&self.geo, address)
        {
            place = geo.place(address);
        }
        let place = self.admit(day, place);
        let entry = Entry {
            name: SEEN.to_owned(),
            user,
            install,
            at,
            received_at: at,
            id: String::new(),
            place,
            properties: String::new(),
        };
        self.note(&mut self.seen.lock(), day, &person, entry);
    }

    /// A connection ends, or is looked at after midnight: it counts for the
    /// day if it has shown life on it.
    pub(crate) fn stay(&self, peer: &Peer, now: i64) {
        let silent = i64::try_from(monotonic_ms().saturating_sub(peer.last_seen())).unwrap_or(0);
        let at = now.saturating_sub(silent);
        let day = self.terms.zone.day(at);
        if day != self.terms.zone.day(now) {
            return;
        }
        let person = Person::User(peer.identity.user);
        let mut seen = self.seen.lock();
        let place = seen.place(&person);
        let entry = Entry {
            name: SEEN.to_owned(),
            user: Some(peer.identity.user),
            install: None,
            at,
            received_at: now,
            id: String::new(),
            place,
            properties: String::new(),
        };
        self.note(&mut seen, day, &person, entry);
    }

    fn note(&self, seen: &mut Seen, day: Day, person: &Person, entry: Entry) {
        match seen.visit(day, person, &entry.place) {
            Visit::Again => {}
            Visit::Full => metrics().census.dropped_people.increment(1),
            Visit::First if self.recorder.push(Item { entry, day }) => {}
            Visit::First => {
                // The next sign of life is another try.
                seen.forget(person);
                metrics().census.dropped_queue.increment(1);
            }
        }
    }

    fn admit(&self, day: Day, place: Place) -> Place {
        let (place, is_surplus) = self.places.lock().admit(day, place);
        metrics().census.dropped_places.increment(u64::from(is_surplus));
        place
    }

    /// Puts events into the log; they are as durable as messages when this
    /// returns.
    pub(crate) async fn report(&self, events: Vec<Event>, now: i64) -> Result<Recorded, StoreError> {
        let item = |event: Event| {
            let mut entry = event.into_entry(now);
            let day = self.terms.zone.day(entry.at);
            entry.place = self.admit(day, std::mem::take(&mut entry.place));
            Item { entry, day }
        };
        let items: Vec<Item> = events.into_iter().map(item).collect();
        let recorded = self.ledger.append(Batch { items: &items, writer: None, now }).await?;
        metrics().census.events_accepted.increment(recorded.accepted);
        metrics().census.events_duplicate.increment(recorded.duplicates);
        Ok(recorded)
    }

    /// The numbers of these days.
    pub(crate) async fn days(&self, days: &[Day], by: Option<By>) -> Result<Vec<Daily>, StoreError> {
        self.ledger.days(days, by).await
    }

    /// How many were online.
    pub(crate) async fn history(&self, span: Span) -> Result<History, StoreError> {
        Ok(rollup(span, self.ledger.samples(span.from, span.to).await?))
    }

    /// Writes one batch of those who wait; `false` = the store is away.
    async fn flush(&self, now: i64) -> bool {
        match self.recorder.flush(&self.ledger, now).await {
            Flushed::Written => true,
            Flushed::Away => false,
            Flushed::Broken(items) => {
                // They may be counted, and the log lacks them: their next sign
                // of life is another try, and nobody is counted twice. What
                // the store never takes is tried no oftener.
                let mut seen = self.seen.lock();
                items.iter().filter_map(|item| item.entry.person()).for_each(|person| seen.forget(&person));
                true
            }
        }
    }

    /// The process is about to end, or to hand everything over: brings what
    /// waits into the log, for at most `within`.
    pub(crate) async fn part(&self, within: Duration) {
        let flushed = async {
            while self.flush(unix_ms()).await {
                if self.recorder.is_empty() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(within, flushed).await;
        let left = self.recorder.waiting();
        if left > 0 {
            tracing::warn!(left, "not recorded who came: the store is away");
        }
    }

    /// Everybody of today, for the process that takes over; not who is not in
    /// the log yet: that one looks at all who are here.
    #[must_use]
    pub(crate) fn carry(&self) -> Vec<CarriedPeople> {
        let mut seen = self.seen.lock();
        self.recorder.people().iter().for_each(|person| seen.forget(person));
        let all = seen.carry(CARRIED).into_iter();
        all.map(|(day, Place { province, city }, people)| CarriedPeople {
            day: day.to_string(),
            province,
            city,
            people,
        })
        .collect()
    }

    /// They were seen by the process before this one.
    pub(crate) fn resume(&self, carried: CarriedPeople) {
        let CarriedPeople { day, province, city, people } = carried;
        let Ok(day) = Day::parse(&day) else { return };
        let place = Place::named(Some(&province), Some(&city));
        self.seen.lock().resume(day, &place, people);
    }

    async fn keep_recording(&self) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_due = tokio::select! {
                _ = second.tick() => true,
                () = self.recorder.is_full() => false,
            };
            // What is no batch yet waits for the second.
            while self.flush(unix_ms()).await
                && (self.recorder.has_batch() || is_due && !self.recorder.is_empty())
            {}
        }
    }

    /// After each midnight, once everybody who is still here has shown it, he
    /// is counted for the new day.
    async fn keep_days(&self, hub: &Hub) {
        // Whoever was here when this process took over is looked at, too.
        let mut walked = None;
        let pause = Duration::from_millis(u64::try_from(self.terms.silence / 10).unwrap_or(0))
            .clamp(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            tokio::time::sleep(pause).await;
            let due = self.terms.zone.day(unix_ms().saturating_sub(self.terms.silence));
            if walked != Some(due) {
                self.walk(hub, unix_ms()).await;
                walked = Some(due);
            }
        }
    }

    /// Everybody who is here counts for the day that is `now`.
    async fn walk(&self, hub: &Hub, now: i64) {
        for crowd in hub.all().chunks(CROWD) {
            while self.recorder.waiting() > CROWDED {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            crowd.iter().for_each(|peer| self.stay(peer, now));
            tokio::time::sleep(PACE).await;
        }
        self.seen.lock().forget_before();
    }
}
