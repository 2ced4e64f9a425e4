//! The least that is possible: one file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::engine::{Engine, Message};

pub(crate) struct Floor(File);

impl Floor {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self(File::options().append(true).create(true).open(dir.join("log"))?))
    }
}

impl Engine for Floor {
    fn commit(&mut self, batch: &[Message]) -> Result<()> {
        let mut bytes = Vec::with_capacity(batch.len() * 256);
        for message in batch {
            bytes.extend_from_slice(&message.key());
            bytes.extend_from_slice(&message.id.to_be_bytes());
            bytes.extend_from_slice(&message.body);
        }
        self.0.write_all(&bytes)?;
        Ok(self.0.sync_data()?)
    }
}
