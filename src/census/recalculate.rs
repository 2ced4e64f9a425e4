//! A day counted anew, from the log.

use super::Census;
use crate::analytics::{Daily, Day, PAST_MS, Position};
use crate::store::StoreError;
use crate::store::ledger::{Counted, Recount, Recounted};

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
        let is_closed = self.is_closed(day, now);
        self.recount(day, version, is_closed).await?;
        if is_closed {
            self.ledger.close_day(day).await?;
        }
        Ok(self.ledger.days(&[day], None).await?.pop().unwrap_or_default())
    }

    /// Counts any day from the log: whoever comes meanwhile is counted, too.
    /// With `alone` what was counted otherwise is forgotten.
    pub(super) async fn recount(
        &self,
        day: Day,
        version: Option<u64>,
        alone: bool,
    ) -> Result<(), RecalculateError> {
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
        let replaced = self.replace(&recount, &mut after, last).await;
        if !matches!(replaced, Ok(Recounted::Done(_))) {
            // Where the store does not answer, it runs out by itself.
            let _ = self.ledger.abandon_recount(&recount).await;
        }
        if let Recounted::Stale(version) = replaced? {
            return Err(RecalculateError::Stale(version));
        }
        if alone {
            self.ledger.forget_otherwise(day).await?;
        }
        // Whoever came in between was counted in what is gone now.
        while let Some(counted) = self.next_of(day, &mut after, last).await? {
            self.ledger.count(&counted).await?;
        }
        Ok(())
    }

    async fn replace(
        &self,
        recount: &Recount,
        after: &mut Position,
        last: Position,
    ) -> Result<Recounted, StoreError> {
        while let Some(counted) = self.next_of(recount.day, after, last).await? {
            self.ledger.recount(recount, &counted).await?;
        }
        self.ledger.finish_recount(recount).await
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
