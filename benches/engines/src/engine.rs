//! What is asked of each engine.

use anyhow::Result;

/// One message.
pub(crate) struct Message {
    pub conversation: u64,
    pub seq: u64,
    /// The sender's id of it, digested.
    pub id: u128,
    pub body: [u8; 220],
}

impl Message {
    pub(crate) fn key(&self) -> [u8; 16] {
        ((u128::from(self.conversation) << 64) | u128::from(self.seq)).to_be_bytes()
    }
}

/// A place for messages; dropped, it is closed.
pub(crate) trait Engine {
    /// All of them, synced to disk.
    fn commit(&mut self, batch: &[Message]) -> Result<()>;

    /// Shortens a close that is to come.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }
}
