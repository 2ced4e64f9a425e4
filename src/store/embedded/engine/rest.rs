//! The engine brought to rest before a close, so that the close and the next
//! opening are short.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{PersistMode, Slice};

use super::{Engine, EngineError, journal};

/// What a journal has to hold before the engine begins another, bytes, and
/// some more.
const ROLL: u64 = 65 << 20;
/// A journal of no more than this is read back at an opening in a few
/// milliseconds, bytes.
const SHORT: u64 = 4 << 20;
/// Written at a time to fill a journal, bytes.
const PADDING: u32 = 1 << 20;

impl Engine {
    /// Sees to it that there is little to read back at the next opening, and
    /// waits until no tables are being merged, which a close would wait for;
    /// both within `limit`. Writes go on meanwhile. Where the journal is short
    /// nothing is written.
    pub(in super::super) fn settle(&self, dir: &Path, limit: Duration) -> Result<(), EngineError> {
        let end = Instant::now() + limit;
        let held = journal::newest_bytes(dir)?;
        if held > SHORT {
            self.fill_journal(held, end)?;
        }
        if held > SHORT || self.database.journal_count() > 1 {
            let ids = self.ids();
            let spaces = [&self.messages, &self.state, &self.ledger, &self.padding];
            for space in spaces.into_iter().chain(ids.values()) {
                space.rotate_memtable()?;
            }
        }
        let mut idle = 0;
        while idle < 10 && Instant::now() < end {
            let is_busy = self.database.journal_count() > 1
                || self.database.outstanding_flushes() > 0
                || self.database.active_compactions() > 0;
            idle = if is_busy { 0 } else { idle + 1 };
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The engine begins another journal when this one is full and what is in
    /// memory becomes tables.
    fn fill_journal(&self, held: u64, end: Instant) -> Result<(), EngineError> {
        let padding = Slice::from(vec![0; usize::try_from(PADDING).unwrap_or_default()]);
        let fill = |row: Option<&Slice>| -> Result<(), EngineError> {
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
            match row {
                Some(row) => batch.insert(&self.padding, "padding", row.clone()),
                None => batch.remove(&self.padding, "padding"),
            }
            Ok(batch.commit()?)
        };
        let mut left = ROLL.saturating_sub(held);
        while left > 0 && Instant::now() < end {
            let started = Instant::now();
            fill(Some(&padding))?;
            left = left.saturating_sub(u64::from(PADDING));
            // Half of the disk's time is for those who send.
            std::thread::sleep(started.elapsed());
        }
        fill(None)
    }
}
