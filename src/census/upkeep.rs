//! What one gateway of all does once a minute: a sample of how many are
//! online, and the end of what is past its time.

use std::time::Duration;

use tracing::{debug, warn};

use super::Census;
use super::online::online;
use crate::analytics::{Day, Sample, aligned};
use crate::presence::Presence;
use crate::store::StoreError;
use crate::telemetry::metrics;
use crate::types::unix_ms;

/// Days after which nobody can come to a day any more: events are 7 days old
/// at most.
const CLOSED_AFTER: i64 = 9;
/// Days before those that are looked at, should nobody have been there to
/// close them.
const CATCH_UP: i64 = 30;

impl Census {
    /// Whether nobody can come to this day any more.
    pub(super) fn is_closed(&self, day: Day, now: i64) -> bool {
        day.until(self.terms.zone.day(now)) >= CLOSED_AFTER
    }

    /// At each aligned instant, for ever.
    pub(super) async fn keep_up(&self, presence: &Presence) {
        let every = self.terms.every;
        let mut closed = None;
        loop {
            let next = aligned(unix_ms(), every).saturating_add(every);
            // Not all at once; the sample is told under its instant.
            let late = fastrand::i64(0..=(every / 20).min(2_000));
            let wait = next.saturating_add(late).saturating_sub(unix_ms());
            tokio::time::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0))).await;
            match self.tick(presence, unix_ms(), &mut closed).await {
                Ok(is_mine) => debug!(is_mine, "online numbers sampled"),
                Err(error) => warn!(%error, "no sample of the online numbers"),
            }
        }
    }

    /// Does what is due at `now`; whether it was this gateway's turn.
    pub(super) async fn tick(
        &self,
        presence: &Presence,
        now: i64,
        closed: &mut Option<Day>,
    ) -> Result<bool, StoreError> {
        let today = self.terms.zone.day(now);
        let daily = self.ledger.days(&[today], None).await?.pop().unwrap_or_default();
        metrics().census.daily_users.set(u32::try_from(daily.total).unwrap_or(u32::MAX));
        // Over before the next instant: whoever is there takes that.
        let turn = u64::try_from(self.terms.every.saturating_mul(9) / 10).unwrap_or(1).max(1);
        if !self.ledger.takes_turn(turn).await? {
            return Ok(false);
        }
        let at = aligned(now, self.terms.every);
        let online = online(presence, self.terms.window, now).await?;
        if self.ledger.sample(Sample { at, online }).await? {
            metrics().census.samples.increment(1);
        }
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
        Ok(true)
    }
}
