//! Appending to a file and syncing it, again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bare;
use crate::numbers::float;

/// Length of a file: set when it is made, and its blocks found while it is
/// written, as with the store's journal. At its end there is another one.
const LENGTH: u64 = 64 * 1024 * 1024;

/// For `span`: `batch` messages of `size` bytes in one write, then one sync.
pub(crate) fn append_and_sync(dir: &Path, batch: usize, size: usize, span: Duration) -> Result<Bare> {
    let mut file = fresh(dir)?;
    let bytes = vec![b'x'; batch.max(1) * size];
    let length = u64::try_from(bytes.len())?;
    let (mut bare, mut commits, mut at, begin) = (Bare::default(), 0_u64, 0, Instant::now());
    while begin.elapsed() < span {
        if at + length > LENGTH {
            (file, at) = (fresh(dir)?, 0);
        }
        let from = Instant::now();
        file.write_all_at(&bytes, at).context("appending")?;
        file.sync_data().context("syncing")?;
        bare.latencies.record(from.elapsed());
        commits += 1;
        at += length;
    }
    bare.per_second = float(commits) * float(u64::try_from(batch.max(1))?) / begin.elapsed().as_secs_f64();
    Ok(bare)
}

fn fresh(dir: &Path) -> Result<File> {
    let file = tempfile::tempfile_in(dir).context("a file to append to")?;
    file.set_len(LENGTH).and_then(|()| file.sync_all()).context("preparing the file")?;
    Ok(file)
}
