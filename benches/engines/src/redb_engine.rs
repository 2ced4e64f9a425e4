//! redb.

use std::path::Path;

use anyhow::Result;
use redb::{Database, TableDefinition};

use crate::engine::{Engine, Message};

const MESSAGES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("messages");
const IDS: TableDefinition<'_, u128, u128> = TableDefinition::new("ids");

pub(crate) struct Redb(Database);

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut builder = Database::builder();
        builder.set_cache_size(16 << 20);
        Ok(Self(builder.create(dir.join("redb"))?))
    }
}

impl Engine for Redb {
    fn commit(&mut self, batch: &[Message]) -> Result<()> {
        let write = self.0.begin_write()?;
        {
            let mut messages = write.open_table(MESSAGES)?;
            let mut ids = write.open_table(IDS)?;
            for message in batch {
                let key = u128::from_be_bytes(message.key());
                messages.insert(key, message.body.as_slice())?;
                ids.insert(message.id, key)?;
            }
        }
        Ok(write.commit()?)
    }
}
