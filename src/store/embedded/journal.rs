//! The engine's journals, put in order before it opens them.
//!
//! A journal is a file of commits, one behind the other (`commit`), made in
//! its full size: zeros follow. All before the last one were synced before the
//! next was begun.
//!
//! - What the engine finds in the last journal it takes for written, and it is
//!   confirmed to whoever sends it again. So it has to be on disk by then,
//!   which a file that can be read does not show: after a failed sync the
//!   system keeps the pages in memory, takes them for written and never writes
//!   them, and the next sync succeeds. What is whole is therefore written once
//!   more, in its place, and synced.
//! - A kill or a power cut leaves a commit torn: short, or with holes, as
//!   pages reach the disk in any order. The engine cuts off the first kind and
//!   does not open over the second. Both are cut off here, with a warning:
//!   their sync had not ended, so nobody was told that they are done.
//! - Damage to what was synced looks the same, and the engine would take it
//!   for the end and drop all that follows. It is damage for certain in any
//!   but the last journal, and where a commit follows that was begun once
//!   another one behind the torn one was synced, because that sync brought the
//!   torn one to disk as well. Only positions are not synced by their own
//!   commit. Then nothing is touched, and the error says what is to be done.
//!   Where it cannot be told, in the last commit or the last but one, it is
//!   taken for torn.
//! - A creation that was cut short is begun anew.

mod commit;

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tracing::{debug, warn};

use self::commit::{Broken, Commit};
use super::engine::EngineError;

/// Written again at a time, bytes.
const CHUNK: usize = 1 << 20;
/// Another one that closes the files is given three of these.
const LOCKED: Duration = Duration::from_millis(100);

/// Puts the journals of the store in `dir` in order; nothing where there is
/// none. Blocks.
pub(super) fn secure(dir: &Path) -> Result<(), EngineError> {
    if !dir.try_exists()? {
        return Ok(());
    }
    let _lock = lock(&dir.join("lock"))?;
    if !is_complete(dir)? {
        return Ok(());
    }
    let mut journals = journals(dir)?;
    let last = journals.pop();
    for (_, path) in journals {
        let journal = Journal::open(path)?;
        let (end, number) = journal.end()?;
        let rest = journal.rest(end)?;
        if !rest.is_empty() {
            let (journal, behind) = (journal.path, behind(&rest, number).max(1));
            return Err(EngineError::Torn { journal, at: end, behind });
        }
    }
    if let Some((_, path)) = last {
        let journal = Journal::open(path)?;
        let (end, number) = journal.end()?;
        let rest = journal.rest(end)?;
        if !rest.is_empty() {
            match behind(&rest, number) {
                0 => journal.cut(end, rest.len())?,
                behind => return Err(EngineError::Torn { journal: journal.path, at: end, behind }),
            }
        }
        journal.write_again(end)?;
    }
    Ok(())
}

/// What the last journal of the store in `dir` holds, bytes, as far as the
/// file system can tell.
pub(super) fn newest_bytes(dir: &Path) -> Result<u64, EngineError> {
    let Some((_, path)) = journals(dir)?.pop() else { return Ok(0) };
    Ok(Journal::open(path)?.data_end(0)?)
}

/// Whether the store was made; a creation that was cut short is cleared away.
/// Rows come after the mark that it is done.
fn is_complete(dir: &Path) -> io::Result<bool> {
    let mark = dir.join("version");
    if mark.try_exists()? && mark.metadata()?.len() > 0 {
        return Ok(true);
    }
    let spaces = dir.join("keyspaces");
    if spaces.try_exists()? && spaces.read_dir()?.next().is_some() {
        return Ok(true);
    }
    for left in [dir.join("0.jnl"), mark] {
        match std::fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

/// How many whole commits there are behind a torn one, the first that is not
/// whole after `number`, that were begun when it was on disk.
fn behind(rest: &[u8], mut number: u64) -> usize {
    let (mut rest, mut is_synced, mut count) = (rest, false, 0);
    while let Some((_, next)) = rest.split_first() {
        let room = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        let whole = Commit::read(&mut &*rest, room).ok().filter(|commit| commit.number > number);
        rest = next;
        if let Some(commit) = whole {
            count += usize::from(is_synced);
            is_synced |= commit.is_synced;
            number = commit.number;
            let past = usize::try_from(commit.bytes).unwrap_or(usize::MAX).saturating_sub(1);
            rest = next.get(past..).unwrap_or_default();
        }
    }
    count
}

/// The engine's own lock, which it takes itself afterwards: two that start at
/// a time may get in each other's way, but not into each other's files.
fn lock(path: &Path) -> Result<File, EngineError> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
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
pub(super) fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>, EngineError> {
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
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes, the zeros included.
    size: u64,
}

impl Journal {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Where the last of the whole commits that follow each other ends, and
    /// its number.
    pub(super) fn end(&self) -> io::Result<(u64, u64)> {
        let mut reader = BufReader::with_capacity(CHUNK, &self.file);
        reader.seek(SeekFrom::Start(0))?;
        let (mut end, mut number) = (0, 0);
        loop {
            match Commit::read(&mut reader, self.size.saturating_sub(end)) {
                Ok(commit) => (end, number) = (end + commit.bytes, commit.number),
                Err(Broken::Torn) => return Ok((end, number)),
                Err(Broken::Unreadable(error)) => return Err(error),
            }
        }
    }

    /// What is behind `end`, without the zeros at its end.
    pub(super) fn rest(&self, end: u64) -> io::Result<Vec<u8>> {
        let length = self.data_end(end)?.saturating_sub(end);
        let mut rest = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut rest, end)?;
        let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
        rest.truncate(rest.len() - zeros);
        Ok(rest)
    }

    /// Where data end behind `from`, as far as the file system can tell.
    fn data_end(&self, from: u64) -> io::Result<u64> {
        let mut end = from;
        let seek = |at: u64, whence| lseek(&self.file, i64::try_from(at).unwrap_or(i64::MAX), whence);
        loop {
            let hole = match seek(end, Whence::SeekData) {
                Ok(data) => seek(u64::try_from(data).unwrap_or(end), Whence::SeekHole),
                Err(Errno::ENXIO) => return Ok(end),
                Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(self.size),
                Err(error) => Err(error),
            };
            end = u64::try_from(hole?).unwrap_or(self.size);
        }
    }

    fn cut(&self, end: u64, bytes: usize) -> io::Result<()> {
        let journal = self.path.display();
        warn!(%journal, at = end, bytes, "cut off what was being written when the store was last stopped");
        self.file.set_len(end)?;
        self.file.sync_all()
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
        debug!(journal = %self.path.display(), bytes = end, "written again");
        self.file.sync_all()
    }
}
