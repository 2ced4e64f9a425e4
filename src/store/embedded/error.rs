//! Why the files of the store cannot be used, in the operator's words.

use std::path::PathBuf;

use super::engine::VERSION;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] fjall::Error),
    /// The files cannot be worked on.
    #[error(transparent)]
    Files(#[from] std::io::Error),
    /// A newer program wrote it.
    #[error("written by a newer version (layout {0}, this program reads up to {VERSION})")]
    Newer(u32),
    /// Another version of the engine wrote it.
    #[error("written by another version of the storage engine")]
    Foreign,
    /// Another process has it open.
    #[error("another process has it open")]
    Locked,
    /// A journal lost something that was synced.
    #[error(
        "{} is damaged at byte {at}, and {behind} or more whole commits behind it were confirmed: bring back a \
         backup of the data directory; or give up what is behind it, in this file and in the .jnl files with a \
         larger number (remove those, and: truncate -s {at} {}); in both cases start once with --restored",
        journal.display(), journal.display()
    )]
    Torn {
        /// Its file.
        journal: PathBuf,
        /// Where, in bytes.
        at: u64,
        /// At least.
        behind: usize,
    },
    /// What is in it makes no sense.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Merging does not keep up, or has ended.
    #[error("tables are not merged in time")]
    Stalled,
}

impl From<prost::DecodeError> for EngineError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }
}
