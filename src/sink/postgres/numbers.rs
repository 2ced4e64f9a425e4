//! The daily and the online numbers, as far as they have changed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::session::{Session, timely};
use super::{Postgres, SinkError};
use crate::analytics::{By, Daily, Day};
use crate::types::unix_ms;

/// How often numbers are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Days that may still change, and how many are looked at first: as many as
/// are kept.
const RECENT: i64 = 40;
const ALL: i64 = 400;
/// Days asked for at once.
const CHUNK: usize = 16;
/// Longest time of samples copied at once.
const SAMPLES_MS: i64 = 24 * 3_600_000;
/// A sample that comes later than this is not looked for.
const LATE_MS: i64 = 600_000;

const SET_DAY: &str = "
    INSERT INTO analytics_daily_active_users (source, day, grouping, place, users, is_estimated, version)
    SELECT $1, $2::text::date, grouping, place, users, $3, $4
    FROM unnest($5::text[], $6::text[], $7::bigint[]) AS daily (grouping, place, users)";
const ADD_SAMPLES: &str = "
    INSERT INTO analytics_online_snapshots
    SELECT $1, to_timestamp(at / 1000.0), online FROM unnest($2::bigint[], $3::bigint[]) AS sample (at, online)
    ON CONFLICT DO NOTHING";

/// What is known to be in the database.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    days: HashMap<Day, [Daily; 2]>,
    /// Samples before this are there, unix ms.
    sampled: Option<i64>,
    looked: Option<Instant>,
}

impl Numbers {
    /// Copies what has changed, now and then.
    pub(super) async fn copy(&mut self, sink: &Postgres, session: &mut Session) -> Result<(), SinkError> {
        if self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        self.add_samples(sink, session).await?;
        let today = sink.zone.day(unix_ms());
        let back = if self.looked.is_some() { RECENT } else { ALL };
        let days: Vec<Day> = (1 - back..=0).map(|n| today.plus(n)).collect();
        for days in days.chunks(CHUNK) {
            let provinces = sink.ledger.days(days, Some(By::Province)).await?;
            let cities = sink.ledger.days(days, Some(By::City)).await?;
            for (day, daily) in days.iter().zip(provinces.into_iter().zip(cities)) {
                let daily: [Daily; 2] = daily.into();
                // Nobody came, and nobody was said to have come.
                let is_new = !self.days.contains_key(day);
                let is_empty = is_new && daily.iter().all(|daily| daily.total == 0 && daily.version == 0);
                if is_empty || self.days.get(day) == Some(&daily) {
                    continue;
                }
                session.set_day(sink.source(), *day, &daily).await?;
                self.days.insert(*day, daily);
            }
        }
        self.days.retain(|day, _| day.until(today) < ALL);
        self.looked = Some(Instant::now());
        Ok(())
    }

    async fn add_samples(&mut self, sink: &Postgres, session: &Session) -> Result<(), SinkError> {
        let now = unix_ms();
        let oldest = now - ALL * SAMPLES_MS;
        let mut from = match self.sampled {
            Some(from) => from,
            None => session.sampled(sink.source()).await?.map_or(oldest, |last| last + 1).max(oldest),
        };
        while from <= now {
            let to = (from + SAMPLES_MS).min(now + 1);
            let samples = sink.ledger.samples(from, to).await?;
            if let Some(last) = samples.last() {
                let (at, online): (Vec<i64>, Vec<i64>) =
                    samples.iter().map(|sample| (sample.at, sample.online.cast_signed())).unzip();
                timely(session.client.execute(ADD_SAMPLES, &[&sink.source(), &at, &online])).await?;
                self.sampled = Some(last.at + 1);
            }
            from = to;
        }
        // One of an instant that is past may come late, by as much as a lease.
        self.sampled = Some(self.sampled.unwrap_or(oldest).max(now - LATE_MS));
        Ok(())
    }
}

impl Session {
    /// The instant of the last sample, unix ms.
    async fn sampled(&self, source: &str) -> Result<Option<i64>, SinkError> {
        let read = "SELECT (extract(epoch FROM max(ts)) * 1000)::bigint
                    FROM analytics_online_snapshots WHERE source = $1";
        Ok(timely(self.client.query_one(read, &[&source])).await?.try_get(0)?)
    }

    /// Puts these numbers in the place of those that are there.
    async fn set_day(&mut self, source: &str, day: Day, daily: &[Daily; 2]) -> Result<(), SinkError> {
        let [provinces, cities] = daily;
        let mut grouping = vec!["total"];
        let mut place = vec![String::new()];
        let mut users = vec![provinces.total.cast_signed()];
        for (name, daily) in [("province", provinces), ("city", cities)] {
            for (at, count) in &daily.places {
                grouping.push(name);
                place.push(match name {
                    "province" => at.province.clone(),
                    _ => format!("{}/{}", escaped(&at.province), escaped(&at.city)),
                });
                users.push(count.cast_signed());
            }
        }
        let (day, version) = (day.to_string(), provinces.version.cast_signed());
        let work = timely(self.client.transaction()).await?;
        let remove = "DELETE FROM analytics_daily_active_users WHERE source = $1 AND day = $2::text::date";
        timely(work.execute(remove, &[&source, &day])).await?;
        let is_estimated = provinces.is_estimated;
        timely(work.execute(SET_DAY, &[&source, &day, &is_estimated, &version, &grouping, &place, &users]))
            .await?;
        timely(work.commit()).await
    }
}

/// A province may be named with a `/`, and is told from its city all the same.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_have_one_name() {
        let name = |province: &str, city: &str| format!("{}/{}", escaped(province), escaped(city));
        assert_eq!(name("Guangdong", "Shenzhen"), "Guangdong/Shenzhen");
        assert_ne!(name("a/b", "c"), name("a", "b/c"));
        assert_ne!(name("a%2Fb", "c"), name("a/b", "c"));
    }
}
