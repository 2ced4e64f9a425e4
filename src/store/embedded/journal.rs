//! The engine's journals, put in order before it opens them.
//!
//! A journal is a file of commits, one behind the other (`commit`), made in
//! its full size: zeros follow. Whatever is in the last one is taken for
//! written by the engine, and confirmed again to whoever sends it again. So it
//! has to be on disk by then, which a file that can be read does not show:
//! after a failed sync the system keeps the pages in memory, takes them for
//! written and never writes them, and the next sync succeeds. What is whole in
//! the last journal is therefore written once more, in its place, and synced.
//! The journals before it were synced before the next was begun.

mod commit;

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::commit::{Broken, Commit};
use super::engine::EngineError;

/// Written again at a time, bytes.
const CHUNK: usize = 1 << 20;
/// Another one that closes the files is given three of these.
const LOCKED: Duration = Duration::from_millis(100);

/// Puts the journals of the store in `dir` in order; nothing where there is
/// none. Blocks.
pub(super) fn secure(dir: &Path) -> Result<(), EngineError> {
    if !dir.join("version").try_exists()? {
        return Ok(());
    }
    let _lock = lock(&dir.join("lock"))?;
    if let Some((_, last)) = journals(dir)?.pop() {
        let journal = Journal::open(last)?;
        let end = journal.end()?;
        journal.write_again(end)?;
    }
    Ok(())
}

/// The engine's own lock, which it takes itself afterwards: two that start at
/// a time may get in each other's way, but not into each other's files.
fn lock(path: &Path) -> Result<File, EngineError> {
    let file = File::options().read(true).write(true).open(path)?;
    for _ in 0..3 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCKED),
        }
    }
    Err(EngineError::Locked)
}

/// All of them, in order.
fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>, EngineError> {
    let mut journals = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|name| name.parse().ok()) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// One of them.
struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes, the zeros included.
    size: u64,
}

impl Journal {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Where the last of the whole commits that follow each other ends.
    fn end(&self) -> io::Result<u64> {
        let mut reader = BufReader::with_capacity(CHUNK, &self.file);
        reader.seek(SeekFrom::Start(0))?;
        let mut end = 0;
        loop {
            match Commit::read(&mut reader, self.size.saturating_sub(end)) {
                Ok(commit) => end += commit.bytes,
                Err(Broken::Torn) => return Ok(end),
                Err(Broken::Unreadable(error)) => return Err(error),
            }
        }
    }

    fn write_again(&self, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < end {
            let most = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let (chunk, _) = buffer.split_at_mut(most);
            self.file.read_exact_at(chunk, at)?;
            self.file.write_all_at(chunk, at)?;
            at += u64::try_from(most).unwrap_or(u64::MAX);
        }
        tracing::debug!(journal = %self.path.display(), bytes = end, "written again");
        self.file.sync_all()
    }
}
