//! Appending to a file and syncing it, again and again.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bare;
use crate::numbers::float;

/// For `span`: `batch` messages of `size` bytes in one write, then one sync.
pub(crate) fn append_and_sync(dir: &Path, batch: usize, size: usize, span: Duration) -> Result<Bare> {
    let mut file = tempfile::tempfile_in(dir).context("a file to append to")?;
    let bytes = vec![b'x'; batch.max(1) * size];
    let (mut bare, mut stored, begin) = (Bare::default(), 0_u64, Instant::now());
    while begin.elapsed() < span {
        let from = Instant::now();
        file.write_all(&bytes).context("appending")?;
        file.sync_data().context("syncing")?;
        bare.latencies.record(from.elapsed());
        stored += u64::try_from(batch.max(1))?;
    }
    bare.per_second = float(stored) / begin.elapsed().as_secs_f64();
    Ok(bare)
}
