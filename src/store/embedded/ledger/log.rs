//! The log: a row per entry, in the order of their positions.

use super::rows::{self, EntryRow, MarkRow, Nothing};
use super::{EmbeddedStore, STEP, daily};
use crate::analytics::{Item, PAST_MS, Position};
use crate::store::StoreError;
use crate::store::embedded::committer::Durability;
use crate::store::embedded::engine::EngineError;
use crate::store::embedded::rows::Space;
use crate::store::embedded::staged::Staged;
use crate::store::ledger::{Batch, Counted, LogPage, Recorded};

/// Ids are remembered by periods of this length, for one to two of them.
const PERIOD_MS: i64 = PAST_MS;
/// The last position given.
const END: &str = "end";
/// How many entries there are.
const ENTRIES: &str = "entries";
/// Up to where the log may have been removed.
const TRIMMED: &str = "trimmed";

/// A position behind `last`, at this time if that has not passed.
fn next(last: Position, now: i64) -> Position {
    let ms = u64::try_from(now).unwrap_or(0);
    if ms > last.ms { Position { ms, n: 0 } } else { Position { ms: last.ms, n: last.n.saturating_add(1) } }
}

fn record(
    staged: &mut Staged,
    items: Vec<Item>,
    writer: Option<(String, u64)>,
    now: i64,
) -> Result<Recorded, EngineError> {
    let mut recorded = Recorded::default();
    if let Some((writer, number)) = writer {
        let key = rows::mark(&format!("batch:{writer}"));
        let last: Option<MarkRow> = staged.get(Space::Ledger, key.clone())?;
        if last.is_some_and(|last| last.n == number) {
            return Ok(Recorded { accepted: 0, duplicates: u64::try_from(items.len()).unwrap_or(0) });
        }
        staged.put(Space::Ledger, key, &MarkRow { ms: 0, n: number });
    }
    let period = now / PERIOD_MS;
    let mut end = staged.get::<MarkRow>(Space::Ledger, rows::mark(END))?.unwrap_or_default().into();
    for Item { entry, day } in items {
        if let Some(id) = entry.key() {
            let mut is_known = false;
            for period in [period, period - 1, period + 1] {
                is_known = is_known || staged.get::<Nothing>(Space::Ledger, rows::id(period, id))?.is_some();
            }
            if is_known {
                recorded.duplicates += 1;
                continue;
            }
            staged.put(Space::Ledger, rows::id(period, id), &Nothing {});
        }
        if let Some(counted) = Counted::of(&entry, day) {
            daily::count(staged, &counted, None)?;
        }
        end = next(end, now);
        staged.put(Space::Ledger, rows::entry(end), &EntryRow::from(entry));
        recorded.accepted += 1;
    }
    staged.put(Space::Ledger, rows::mark(END), &MarkRow::from(end));
    let key = rows::mark(ENTRIES);
    let entries: MarkRow = staged.get(Space::Ledger, key.clone())?.unwrap_or_default();
    staged.put(Space::Ledger, key, &MarkRow { ms: 0, n: entries.n.saturating_add(recorded.accepted) });
    Ok(recorded)
}

impl EmbeddedStore {
    pub(crate) async fn record(&self, batch: Batch<'_>) -> Result<Recorded, StoreError> {
        let (items, now) = (batch.items.to_vec(), batch.now);
        let writer = batch.writer.map(|(writer, number)| (writer.to_owned(), number));
        self.write(Durability::Synced, false, move |staged| record(staged, items, writer, now)).await
    }

    pub(crate) async fn read_log(&self, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        self.read(move |view| {
            let after = rows::entry(after);
            let more = limit.saturating_add(1);
            let mut read = view.engine.scan(Space::Ledger, &rows::entries(), Some(&after), more)?;
            let has_more = read.len() > limit;
            read.truncate(limit);
            let entry = |(key, row): (Vec<u8>, Vec<u8>)| {
                Ok((rows::position(&key)?, rows::decode::<EntryRow>(&row)?.into()))
            };
            Ok(LogPage {
                entries: read.into_iter().map(entry).collect::<Result<_, EngineError>>()?,
                has_more,
            })
        })
        .await
    }

    pub(crate) async fn log_end(&self) -> Result<Position, StoreError> {
        self.mark(END.to_owned()).await
    }

    pub(crate) async fn log_trimmed(&self) -> Result<Position, StoreError> {
        self.mark(TRIMMED.to_owned()).await
    }

    pub(crate) async fn trim_log(&self, before: i64, most: u64) -> Result<u64, StoreError> {
        let before = Position::before(before);
        let mut removed = 0;
        loop {
            let surplus = self.mark(ENTRIES.to_owned()).await?.n.saturating_sub(most);
            let surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
            let mut old = self.read_log(Position::default(), STEP).await?.entries;
            let kept = old.iter().skip(surplus).position(|(at, _)| *at > before);
            old.truncate(kept.map_or(old.len(), |kept| kept + surplus));
            let Some((last, _)) = old.last() else { break };
            removed += u64::try_from(old.len()).unwrap_or(0);
            // What may be gone is not taken for whole.
            self.raise_mark(TRIMMED.to_owned(), *last).await?;
            let remove = move |staged: &mut Staged| {
                let key = rows::mark(ENTRIES);
                let entries: MarkRow = staged.get(Space::Ledger, key.clone())?.unwrap_or_default();
                let left = entries.n.saturating_sub(u64::try_from(old.len()).unwrap_or(0));
                staged.put(Space::Ledger, key, &MarkRow { ms: 0, n: left });
                old.iter().for_each(|(at, _)| staged.remove(Space::Ledger, rows::entry(*at)));
                Ok(())
            };
            self.write(Durability::Synced, false, remove).await?;
        }
        self.forget_ids().await?;
        Ok(removed)
    }

    async fn forget_ids(&self) -> Result<(), StoreError> {
        let end = i64::try_from(self.log_end().await?.ms).unwrap_or(0);
        let oldest = end / PERIOD_MS - 1;
        let is_old = move |key: &[u8], _: &[u8]| Ok(rows::period(key)? < oldest);
        self.remove_while(rows::ids(), is_old).await.map(drop)
    }

    pub(crate) async fn sunk(&self, sink: &str) -> Result<Position, StoreError> {
        self.mark(format!("sink:{sink}")).await
    }

    pub(crate) async fn set_sunk(&self, sink: &str, at: Position) -> Result<(), StoreError> {
        self.raise_mark(format!("sink:{sink}"), at).await
    }

    async fn mark(&self, name: String) -> Result<Position, StoreError> {
        self.read(move |view| {
            let row = view.engine.get(Space::Ledger, &rows::mark(&name))?;
            Ok(row.map(|row| rows::decode::<MarkRow>(&row)).transpose()?.unwrap_or_default().into())
        })
        .await
    }

    async fn raise_mark(&self, name: String, at: Position) -> Result<(), StoreError> {
        self.write(Durability::Synced, false, move |staged| {
            let key = rows::mark(&name);
            let before: Option<MarkRow> = staged.get(Space::Ledger, key.clone())?;
            if before.is_none_or(|before| Position::from(before) < at) {
                staged.put(Space::Ledger, key, &MarkRow::from(at));
            }
            Ok(())
        })
        .await
    }
}
