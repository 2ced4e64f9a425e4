//! fjall, set up as the gateway's store sets it up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use crate::engine::{Engine, Message};

pub(crate) struct Fjall {
    ids: Keyspace,
    padding: Keyspace,
    messages: Keyspace,
    database: Database,
}

fn options(memtable: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable)
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(16 << 20)))
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir)
            .manual_journal_persist(true)
            .worker_threads(2)
            .cache_size(16 << 20)
            .max_journaling_size(64 << 20)
            .open()?;
        Ok(Self {
            ids: database.keyspace("ids", || options(8 << 20))?,
            padding: database.keyspace("padding", || options(u64::MAX))?,
            messages: database.keyspace("messages", || options(8 << 20))?,
            database,
        })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &[Message]) -> Result<()> {
        let mut rows = self.database.batch().durability(Some(PersistMode::SyncData));
        for message in batch {
            rows.insert(&self.messages, message.key(), message.body);
            rows.insert(&self.ids, message.id.to_be_bytes(), message.key());
        }
        Ok(rows.commit()?)
    }

    /// Empties the memtables, fills the journal so that another one begins,
    /// and waits until no tables are being merged.
    fn prepare(&mut self) -> Result<()> {
        let padding = Slice::from(vec![0; 1 << 20]);
        for _ in 0..64 {
            let mut rows = self.database.batch().durability(Some(PersistMode::SyncData));
            rows.insert(&self.padding, "padding", padding.clone());
            rows.commit()?;
        }
        self.padding.remove("padding")?;
        for keyspace in [&self.messages, &self.ids, &self.padding] {
            keyspace.rotate_memtable()?;
        }
        let mut idle = 0;
        while idle < 10 {
            let is_busy = self.database.journal_count() > 1
                || self.database.outstanding_flushes() > 0
                || self.database.active_compactions() > 0;
            idle = if is_busy { 0 } else { idle + 1 };
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}
