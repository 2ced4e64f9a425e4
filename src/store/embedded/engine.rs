//! The engine: rows in and out, and what is asked of the files.
//!
//! The only place that knows which one it is. An error of it is an I/O error
//! as far as anybody else is concerned.

mod rest;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice};
use parking_lot::Mutex;
use prost::Message;

pub(super) use super::error::EngineError;
use super::journal;
use super::rows::{self, Identity, Space};
use super::staged::{Logged, Rows};

/// The layout of the rows that this program writes.
pub(super) const VERSION: u32 = 1;
/// Rows kept in memory per space before they become a table, bytes.
const MEMTABLE: u64 = 8 << 20;
/// Size of a table, bytes; what a close may have to wait for is the merging
/// of a few of them.
const TABLE: u64 = 16 << 20;
/// Blocks of tables kept in memory, bytes.
const CACHE: u64 = 16 << 20;
/// Bytes of journals after which what holds them back is flushed.
const JOURNALS: u64 = 64 << 20;
/// Longest a commit waits for merging to keep up.
const BACKPRESSURE: Duration = Duration::from_secs(5);

/// In what state the files were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Closed a moment ago, by a process that had synced all of it and said
    /// so.
    Whole,
    /// Nobody knows.
    Anyhow,
}

/// A row of a key and its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The senders' ids, by period.
pub(super) type Ids = BTreeMap<i64, Keyspace>;

/// The open files.
pub(super) struct Engine {
    lineage: u64,
    next_number: AtomicU64,
    state: Keyspace,
    messages: Keyspace,
    ledger: Keyspace,
    padding: Keyspace,
    /// Replaced as a whole, a few times a month.
    ids: Mutex<Arc<Ids>>,
    database: Database,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("lineage", &self.lineage).finish_non_exhaustive()
    }
}

fn options(memtable: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable)
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE)))
}

impl Engine {
    /// Opens what is in `dir`, or makes it, as `state` says. With
    /// `new_lineage` it is another history from here on.
    pub(super) fn open(dir: &Path, state: Left, new_lineage: bool) -> Result<Self, EngineError> {
        if state == Left::Anyhow {
            journal::secure(dir)?;
        }
        let database = Database::builder(dir)
            .manual_journal_persist(true)
            .worker_threads(2)
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => EngineError::Locked,
                fjall::Error::InvalidVersion(_) => EngineError::Foreign,
                fjall::Error::Io(error) => EngineError::Files(error),
                error => EngineError::Failed(error),
            })?;
        let state = database.keyspace("state", || options(MEMTABLE))?;
        let stored = state.get(rows::identity())?.map(|row| Identity::decode(&row[..])).transpose()?;
        if let Some(stored) = &stored
            && stored.version > VERSION
        {
            return Err(EngineError::Newer(stored.version));
        }
        let is_new = stored.is_none();
        let mut identity = stored.unwrap_or(Identity { version: VERSION, lineage: 0, next_number: 1 });
        let messages = database.keyspace("messages", || options(MEMTABLE))?;
        if is_new || new_lineage {
            identity.lineage = fastrand::u64(1..);
            // What was brought back may be older here than there.
            if let Some(row) = messages.iter().next_back()
                && let Some(number) = rows::number(&row.key()?)
            {
                identity.next_number = identity.next_number.max(number.saturating_add(1));
            }
            state.insert(rows::identity(), identity.encode_to_vec())?;
            database.persist(PersistMode::SyncAll)?;
        }
        let ids = Mutex::default();
        let engine = Self {
            lineage: identity.lineage,
            next_number: AtomicU64::new(identity.next_number),
            messages,
            ledger: database.keyspace("ledger", || options(MEMTABLE))?,
            padding: database.keyspace("padding", || options(u64::MAX))?,
            state,
            ids,
            database,
        };
        for name in engine.database.list_keyspace_names() {
            if let Some(period) = name.strip_prefix("ids-").and_then(|period| period.parse().ok()) {
                engine.ids_of(period)?;
            }
        }
        Ok(engine)
    }

    /// Names this history of the store.
    pub(super) fn lineage(&self) -> u64 {
        self.lineage
    }

    /// A number for a new conversation, and the row to write with it.
    pub(super) fn number(&self) -> (u64, Identity) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        (number, Identity { version: VERSION, lineage: self.lineage, next_number: number + 1 })
    }

    /// The ids of all periods.
    pub(super) fn ids(&self) -> Arc<Ids> {
        Arc::clone(&self.ids.lock())
    }

    fn ids_of(&self, period: i64) -> Result<Keyspace, EngineError> {
        let mut ids = self.ids.lock();
        if let Some(keyspace) = ids.get(&period) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.database.keyspace(&format!("ids-{period}"), || options(MEMTABLE))?;
        Arc::make_mut(&mut ids).insert(period, keyspace.clone());
        Ok(keyspace)
    }

    /// Periods of which ids are remembered.
    #[cfg(test)]
    pub(super) fn periods(&self) -> Vec<i64> {
        self.ids().keys().rev().copied().collect()
    }

    /// Forgets the ids of all periods before `period`.
    pub(super) fn forget_before(&self, period: i64) -> Result<(), EngineError> {
        let old = {
            let mut ids = self.ids.lock();
            if ids.keys().next().is_none_or(|oldest| *oldest >= period) {
                return Ok(());
            }
            let kept = Arc::make_mut(&mut ids).split_off(&period);
            std::mem::replace(&mut *ids, Arc::new(kept))
        };
        for keyspace in old.values() {
            self.database.delete_keyspace(keyspace.clone())?;
        }
        Ok(())
    }

    fn space(&self, space: Space) -> Result<Keyspace, EngineError> {
        Ok(match space {
            Space::State => self.state.clone(),
            Space::Messages => self.messages.clone(),
            Space::Ids(period) => return self.ids_of(period),
            Space::Ledger => self.ledger.clone(),
        })
    }

    /// The value of a row.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, EngineError> {
        Ok(match space {
            Space::State => self.state.get(key)?,
            Space::Messages => self.messages.get(key)?,
            Space::Ledger => self.ledger.get(key)?,
            Space::Ids(period) => {
                let keyspace = self.ids().get(&period).cloned();
                keyspace.map(|keyspace| keyspace.get(key)).transpose()?.flatten()
            }
        })
    }

    /// At most `limit` rows whose keys begin with `prefix`, behind `after`; of
    /// a commit all or, unless a table is finished meanwhile, none.
    pub(super) fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, EngineError> {
        let keyspace = self.space(space)?;
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut rows = Vec::new();
        let snapshot = self.database.snapshot();
        for row in snapshot.range::<&[u8], _>(&keyspace, (from, Bound::Unbounded)).take(limit) {
            let (key, value) = row.into_inner()?;
            if !key.starts_with(prefix) {
                break;
            }
            rows.push((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    /// Messages of the seqs `first..=last`, from one end on, as long as `take`
    /// wants them.
    pub(super) fn messages(
        &self,
        (first, last): (&[u8], &[u8]),
        backward: bool,
        mut take: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        let span = (Bound::Included(first), Bound::Included(last));
        // Not from a snapshot, which could be older than the head that was read
        // before: messages are the first rows of a commit, in their order.
        let mut rows = self.messages.range::<&[u8], _>(span);
        let next = || if backward { rows.next_back() } else { rows.next() };
        for row in std::iter::from_fn(next) {
            let (key, value) = row.into_inner()?;
            if !take(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    /// Writes messages and rows, all or none; with `sync` they are on disk
    /// afterwards.
    pub(super) fn write(&self, messages: Vec<Logged>, rows: Rows, sync: bool) -> Result<(), EngineError> {
        self.keep_up()?;
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.database.batch().durability(Some(mode));
        for (key, value) in messages {
            batch.insert(&self.messages, key, value);
        }
        // A table that is finished meanwhile lets a snapshot see a part of the
        // batch. Of the log, then, it is the first entries.
        let is_ledger = |((space, _), _): &((Space, _), _)| *space == Space::Ledger;
        let (mut ledger, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_ledger);
        ledger.sort_unstable_by(|((_, a), _), ((_, b), _)| a.cmp(b));
        // All ids of a commit are of one period, as a rule.
        let mut ids = None;
        for ((space, key), value) in rest.into_iter().chain(ledger) {
            let space = match space {
                Space::State => &self.state,
                Space::Messages => &self.messages,
                Space::Ledger => &self.ledger,
                Space::Ids(period) => {
                    let known = ids.take().filter(|(of, _)| *of == period);
                    let known =
                        known.map_or_else(|| Ok((period, self.ids_of(period)?)), Ok::<_, EngineError>)?;
                    &ids.insert(known).1
                }
            };
            match value {
                Some(value) => batch.insert(space, key, value),
                None => batch.remove(space, key),
            }
        }
        Ok(batch.commit()?)
    }

    /// Waits until there is room for another table. The engine would wait
    /// itself, but for ever should the merging have ended with an error.
    fn keep_up(&self) -> Result<(), EngineError> {
        const SEALED: usize = 3;
        const TABLES: usize = 24;
        let is_behind = || {
            let behind = |space: &Keyspace| {
                space.sealed_memtable_count() >= SEALED || space.l0_table_count() >= TABLES
            };
            let spaces = [&self.messages, &self.state, &self.ledger];
            spaces.into_iter().any(behind) || self.ids().values().any(behind)
        };
        let started = Instant::now();
        while is_behind() {
            if started.elapsed() > BACKPRESSURE {
                return Err(EngineError::Stalled);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Brings everything written so far to disk.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }
}

/// Where the files of a data directory are.
pub(super) fn place(data_dir: &Path) -> PathBuf {
    data_dir.join("store")
}
