//! What one gateway of all does once a minute: a sample of how many are
//! online, and the end of what is past its time.
//!
//! All gateways do it by the store's clock, whatever their own say.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Census;
use crate::analytics::{Day, Sample, aligned};
use crate::presence::{Headcount, Presence, PresenceError};
use crate::store::StoreError;
use crate::telemetry::metrics;
use crate::types::unix_ms;

/// Days after which nobody can come to a day any more: events are 7 days old
/// at most.
pub(super) const CLOSED_AFTER: i64 = 9;
/// Days before those that are looked at, should nobody have been there to
/// close them.
const CATCH_UP: i64 = 30;

/// The store's clock, as it was when it was last asked.
#[derive(Debug, Clone, Copy)]
struct StoreClock {
    /// What it said, unix ms.
    said: i64,
    asked: Instant,
}

impl StoreClock {
    fn says(said: i64) -> Self {
        Self { said, asked: Instant::now() }
    }

    /// At most a round trip behind, as long as nobody sets it.
    fn now(self) -> i64 {
        let passed = i64::try_from(self.asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.said.saturating_add(passed)
    }
}

impl Census {
    /// Whether nobody can come to this day any more.
    pub(super) fn is_closed(&self, day: Day, now: i64) -> bool {
        day.until(self.terms.zone.day(now)) >= CLOSED_AFTER
    }

    /// At each aligned instant, for ever.
    pub(super) async fn keep_up(&self, presence: &Presence) {
        let every = self.terms.every;
        let mut closed = None;
        let first = self.headcount(presence).await;
        let mut clock = StoreClock::says(first.map_or_else(|_| unix_ms(), |counted| counted.as_of));
        let _ = self.tell_today(self.terms.zone.day(clock.now())).await;
        loop {
            let next = aligned(clock.now(), every).saturating_add(every);
            // Not all at once, and none too early where clocks differ in their
            // pace; the sample is told under its instant.
            let late = fastrand::i64((every / 100).min(500)..=(every / 20).min(2_000));
            let wait = next.saturating_add(late).saturating_sub(clock.now());
            tokio::time::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0))).await;
            let ticked = match self.headcount(presence).await {
                Ok(counted) => {
                    clock = StoreClock::says(counted.as_of);
                    self.tick(counted, &mut closed).await
                }
                Err(error) => Err(error),
            };
            match ticked {
                Ok(is_mine) => debug!(is_mine, "online numbers sampled"),
                Err(error) => {
                    metrics().census.samples_unavailable.increment(1);
                    warn!(%error, "no sample of the online numbers");
                }
            }
        }
    }

    async fn tell_today(&self, today: Day) -> Result<(), StoreError> {
        let daily = self.ledger.days(&[today], None).await?.pop().unwrap_or_default();
        metrics().census.daily_users.set(u32::try_from(daily.total).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Of all gateways.
    pub(super) async fn headcount(&self, presence: &Presence) -> Result<Headcount, StoreError> {
        let counted = presence.online_count(self.terms.window).await;
        counted.map_err(|PresenceError::Redis(_)| StoreError::Unavailable)
    }

    /// Does what is due at the time of this count; whether it was this
    /// gateway's turn.
    pub(super) async fn tick(
        &self,
        counted: Headcount,
        closed: &mut Option<Day>,
    ) -> Result<bool, StoreError> {
        let Headcount { users: online, as_of: now } = counted;
        let today = self.terms.zone.day(now);
        self.tell_today(today).await?;
        // Over before the next instant: whoever is there takes that.
        let turn = u64::try_from(self.terms.every.saturating_mul(9) / 10).unwrap_or(1).max(1);
        if !self.ledger.takes_turn(turn).await? {
            return Ok(false);
        }
        let at = aligned(now, self.terms.every);
        let is_first = self.ledger.sample(Sample { at, online }).await?;
        let metrics = &metrics().census;
        if is_first { &metrics.samples } else { &metrics.samples_refused }.increment(1);
        // There is a sample all the same.
        if let Err(error) = self.tidy(now, closed).await {
            warn!(%error, "what is past its time is removed later");
        }
        Ok(true)
    }

    /// The end of what is past its time.
    async fn tidy(&self, now: i64, closed: &mut Option<Day>) -> Result<(), StoreError> {
        let today = self.terms.zone.day(now);
        let trimmed = self.ledger.trim(now.saturating_sub(self.terms.log_age), self.terms.log_count).await?;
        metrics().census.trimmed.increment(trimmed);
        if *closed != Some(today) {
            for ago in (CLOSED_AFTER..CLOSED_AFTER + CATCH_UP).rev() {
                self.ledger.close_day(today.plus(-ago)).await?;
            }
            *closed = Some(today);
        }
        let before = now.saturating_sub(self.terms.history_age);
        self.ledger.forget(before, self.terms.zone.day(before)).await?;
        Ok(())
    }
}
