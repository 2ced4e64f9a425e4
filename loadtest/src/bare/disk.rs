//! Appending to a file and syncing it, again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bare;
use crate::numbers::float;

/// Length of the file: written before it counts, so that a sync writes data
/// and no change of the file's size or blocks. At its end it begins anew.
const LENGTH: u64 = 32 * 1024 * 1024;
const CHUNK: usize = 1024 * 1024;

/// For `span`: `batch` messages of `size` bytes in one write, then one sync.
pub(crate) fn append_and_sync(dir: &Path, batch: usize, size: usize, span: Duration) -> Result<Bare> {
    let file = prepared(dir)?;
    let bytes = vec![b'x'; batch.max(1) * size];
    let length = u64::try_from(bytes.len())?;
    let (mut bare, mut commits, mut at, begin) = (Bare::default(), 0_u64, 0, Instant::now());
    while begin.elapsed() < span {
        let from = Instant::now();
        file.write_all_at(&bytes, at).context("appending")?;
        file.sync_data().context("syncing")?;
        bare.latencies.record(from.elapsed());
        commits += 1;
        at = if at + 2 * length > LENGTH { 0 } else { at + length };
    }
    bare.per_second = float(commits) * float(u64::try_from(batch.max(1))?) / begin.elapsed().as_secs_f64();
    Ok(bare)
}

fn prepared(dir: &Path) -> Result<File> {
    let file = tempfile::tempfile_in(dir).context("a file to append to")?;
    let zeros = vec![0; CHUNK];
    let mut at = 0;
    while at < LENGTH {
        file.write_all_at(&zeros, at).context("preparing the file")?;
        at += u64::try_from(CHUNK)?;
    }
    file.sync_all().context("preparing the file")?;
    Ok(file)
}
