//! A past day counted anew, from the log.

use tracing::{info, warn};

use super::Census;
use super::upkeep::CLOSED_AFTER;
use crate::analytics::{Daily, Day, PAST_MS, Position};
use crate::store::StoreError;
use crate::store::ledger::{Counted, Recounted};

/// Entries read at a time.
const PAGE: usize = 2_000;
/// How far the store's clock and a client's may differ, ms.
const SKEW_MS: i64 = 10 * 60_000;

/// Why a day is not counted anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecalculateError {
    /// It is not over.
    #[error("the day is not over")]
    NotPast,
    /// The log does not reach back so far.
    #[error("the log does not reach back to that day any more")]
    Gone,
    /// Its numbers are of another version.
    #[error("the numbers are of version {0} by now")]
    Stale(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Census {
    /// Counts a past day from the log; with `version` only if its numbers
    /// still have this one.
    pub(crate) async fn recalculate(
        &self,
        day: Day,
        version: Option<u64>,
        now: i64,
    ) -> Result<Daily, RecalculateError> {
        if self.terms.zone.span(day).1 > now {
            return Err(RecalculateError::NotPast);
        }
        self.recount(day, version, now).await
    }

    /// The same for any day: whoever comes meanwhile is counted, too.
    async fn recount(&self, day: Day, version: Option<u64>, now: i64) -> Result<Daily, RecalculateError> {
        let (start, end) = self.terms.zone.span(day);
        let first = Position::before(start.saturating_sub(SKEW_MS));
        if self.ledger.trimmed().await? > first {
            return Err(RecalculateError::Gone);
        }
        let recount = self.ledger.begin_recount(day).await?;
        if version.is_some_and(|version| version != recount.version) {
            return Err(RecalculateError::Stale(recount.version));
        }
        let last = Position::before(end.saturating_add(PAST_MS).saturating_add(SKEW_MS));
        let mut after = first;
        while let Some(counted) = self.next_of(day, &mut after, last).await? {
            self.ledger.recount(&recount, &counted).await?;
        }
        if let Recounted::Stale(version) = self.ledger.finish_recount(&recount).await? {
            return Err(RecalculateError::Stale(version));
        }
        // Whoever came in between was counted in what is gone now.
        while let Some(counted) = self.next_of(day, &mut after, last).await? {
            self.ledger.count(&counted).await?;
        }
        if self.is_closed(day, now) {
            self.ledger.close_day(day).await?;
        }
        Ok(self.ledger.days(&[day], None).await?.pop().unwrap_or_default())
    }

    /// Days to which people can come and that were counted otherwise than is
    /// configured now: `presence.dau` was changed.
    pub(super) async fn convert(&self, now: i64) -> Result<(), StoreError> {
        let today = self.terms.zone.day(now);
        let open: Vec<Day> = (-1..CLOSED_AFTER).map(|ago| today.plus(-ago)).collect();
        for day in self.ledger.counted_otherwise(&open).await? {
            match self.recount(day, None, now).await {
                Ok(Daily { total, .. }) => info!(%day, total, "counted anew: presence.dau was changed"),
                // Another gateway has done so.
                Err(RecalculateError::Stale(_)) => {}
                Err(RecalculateError::Store(error)) => return Err(error),
                Err(error @ (RecalculateError::Gone | RecalculateError::NotPast)) => {
                    warn!(%day, %error, "presence.dau was changed, and the day cannot be counted anew");
                    continue;
                }
            }
            self.ledger.forget_otherwise(day).await?;
        }
        Ok(())
    }

    /// Who is in the next part of the log, if there is one.
    async fn next_of(
        &self,
        day: Day,
        after: &mut Position,
        last: Position,
    ) -> Result<Option<Vec<Counted>>, StoreError> {
        if *after > last {
            return Ok(None);
        }
        let page = self.ledger.read(*after, PAGE).await?;
        let Some((end, _)) = page.entries.last() else { return Ok(None) };
        *after = *end;
        let of_day = page.entries.iter().filter(|(_, entry)| self.terms.zone.day(entry.at) == day);
        Ok(Some(of_day.filter_map(|(_, entry)| Counted::of(entry, day)).collect()))
    }
}
