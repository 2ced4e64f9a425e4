//! fjall, with small buffers.

use std::path::Path;

use anyhow::Result;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use crate::engine::{Engine, Message};

pub(crate) struct Fjall {
    ids: Keyspace,
    padding: Keyspace,
    messages: Keyspace,
    database: Database,
}

fn mib(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default) << 20
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir)
            .manual_journal_persist(true)
            .worker_threads(2)
            .cache_size(8 << 20)
            .max_journaling_size(mib("JOURNAL", 128))
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(mib("MEMTABLE", 8))
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(mib("TABLE", 64))))
        };
        let padded = || KeyspaceCreateOptions::default().max_memtable_size(128 << 20);
        Ok(Self {
            ids: database.keyspace("ids", options)?,
            padding: database.keyspace("padding", padded)?,
            messages: database.keyspace("messages", options)?,
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

    /// Empties the memtables and moves on to a new journal, which the engine
    /// does by itself only once the old one has 64 MB.
    fn prepare(&mut self) -> Result<()> {
        let padding = Slice::from(vec![0; 1 << 20]);
        for _ in 0..64 {
            let mut rows = self.database.batch().durability(Some(PersistMode::SyncData));
            rows.insert(&self.padding, "padding", padding.clone());
            rows.commit()?;
        }
        for keyspace in [&self.messages, &self.ids, &self.padding] {
            keyspace.rotate_memtable_and_wait()?;
        }
        // A compaction under way is waited for by the close.
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
}
