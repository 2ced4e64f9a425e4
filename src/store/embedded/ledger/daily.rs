//! Daily numbers, exact: a row for each person, and one for each number.
//!
//! A recount writes its rows beside those that count, under a number of its
//! own; the day's row says whose rows count.

use super::rows::{self, DayRow, Group, Nothing, NumberRow};
use super::{EmbeddedStore, STEP};
use crate::analytics::{By, Daily, Day};
use crate::store::StoreError;
use crate::store::embedded::committer::Durability;
use crate::store::embedded::engine::EngineError;
use crate::store::embedded::read::View;
use crate::store::embedded::rows::Space;
use crate::store::embedded::staged::Staged;
use crate::store::ledger::{Counted, Recount, Recounted};

/// Counts somebody, once; in a recount, beside the numbers that are told.
pub(super) fn count(staged: &mut Staged, counted: &Counted, recount: Option<u64>) -> Result<(), EngineError> {
    let day = counted.day;
    let row: Option<DayRow> = staged.get(Space::Ledger, rows::day(day))?;
    let known = row.unwrap_or_default();
    let count = match recount {
        Some(count) => count,
        // Who was there is not known any more.
        None if known.is_closed => return Ok(()),
        None => known.count,
    };
    if row.is_none() {
        staged.put(Space::Ledger, rows::day(day), &known);
    }
    let person = counted.person.to_string();
    let places = counted.groups().map(Some);
    for group in std::iter::once(None).chain(places) {
        let key = rows::person(day, count, &group, &person);
        if staged.get::<Nothing>(Space::Ledger, key.clone())?.is_some() {
            continue;
        }
        staged.put(Space::Ledger, key, &Nothing {});
        let key = rows::number(day, count, &group);
        let number = staged.get(Space::Ledger, key.clone())?;
        let mut number = number.unwrap_or_else(|| NumberRow::of(&group));
        number.people += 1;
        staged.put(Space::Ledger, key, &number);
    }
    Ok(())
}

impl View {
    fn day_row(&self, day: Day) -> Result<DayRow, EngineError> {
        let row = self.engine.get(Space::Ledger, &rows::day(day))?;
        Ok(row.map(|row| rows::decode(&row)).transpose()?.unwrap_or_default())
    }

    fn daily(&self, day: Day, by: Option<By>) -> Result<Daily, EngineError> {
        let DayRow { version, count, .. } = self.day_row(day)?;
        let total: Group = None;
        let row = self.engine.get(Space::Ledger, &rows::number(day, count, &total))?;
        let total = row.map(|row| rows::decode::<NumberRow>(&row)).transpose()?.unwrap_or_default();
        let mut places = Vec::new();
        if let Some(by) = by {
            let prefix = rows::numbers(day, Some(count));
            for (_, row) in self.engine.scan(Space::Ledger, &prefix, None, usize::MAX)? {
                let row: NumberRow = rows::decode(&row)?;
                let people = row.people;
                places.extend(row.place().filter(|(kind, _)| *kind == by).map(|(_, place)| (place, people)));
            }
            places.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        }
        Ok(Daily { total: total.people, places, version, is_estimated: false })
    }
}

impl EmbeddedStore {
    pub(crate) async fn days(&self, days: &[Day], by: Option<By>) -> Result<Vec<Daily>, StoreError> {
        let days = days.to_vec();
        self.read(move |view| days.iter().map(|day| view.daily(*day, by)).collect()).await
    }

    pub(crate) async fn count(&self, counted: &[Counted]) -> Result<(), StoreError> {
        self.count_in(counted, None).await
    }

    pub(crate) async fn recount(&self, recount: &Recount, counted: &[Counted]) -> Result<(), StoreError> {
        self.count_in(counted, Some(recount.nonce)).await
    }

    async fn count_in(&self, counted: &[Counted], recount: Option<u64>) -> Result<(), StoreError> {
        for part in counted.chunks(STEP) {
            let part = part.to_vec();
            let work = move |staged: &mut Staged| part.iter().try_for_each(|one| count(staged, one, recount));
            self.write(Durability::Synced, false, work).await?;
        }
        Ok(())
    }

    pub(crate) async fn finish_recount(&self, recount: &Recount) -> Result<Recounted, StoreError> {
        let Recount { day, version, nonce } = *recount;
        let finish = move |staged: &mut Staged| {
            let row: DayRow = staged.get(Space::Ledger, rows::day(day))?.unwrap_or_default();
            if row.version != version {
                return Ok((Recounted::Stale(row.version), nonce));
            }
            let version = version.saturating_add(1);
            let new = DayRow { version, count: nonce, is_closed: false };
            staged.put(Space::Ledger, rows::day(day), &new);
            Ok((Recounted::Done(version), row.count))
        };
        let (recounted, outdated) = self.write(Durability::Synced, false, finish).await?;
        for prefix in [rows::people(day, Some(outdated)), rows::numbers(day, Some(outdated))] {
            self.remove_while(prefix, |_, _| Ok(true)).await?;
        }
        Ok(recounted)
    }

    pub(crate) async fn close_day(&self, day: Day) -> Result<(), StoreError> {
        let close = move |staged: &mut Staged| {
            let row: Option<DayRow> = staged.get(Space::Ledger, rows::day(day))?;
            let Some(row) = row.filter(|row| !row.is_closed) else { return Ok(false) };
            staged.put(Space::Ledger, rows::day(day), &DayRow { is_closed: true, ..row });
            Ok(true)
        };
        if self.write(Durability::Synced, true, close).await? {
            self.remove_while(rows::people(day, None), |_, _| Ok(true)).await?;
        }
        Ok(())
    }

    /// Everything about days before this one.
    pub(super) async fn forget_days(&self, before: Day) -> Result<(), StoreError> {
        let old = self.read(move |view| {
            let mut days = Vec::new();
            for (key, _) in view.engine.scan(Space::Ledger, &rows::days(), None, STEP)? {
                let day = rows::day_of(&key)?;
                if day >= before {
                    break;
                }
                days.push(day);
            }
            Ok(days)
        });
        for day in old.await? {
            for prefix in [rows::people(day, None), rows::numbers(day, None), rows::day(day)] {
                self.remove_while(prefix, |_, _| Ok(true)).await?;
            }
        }
        Ok(())
    }
}
