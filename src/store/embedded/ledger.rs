//! The ledger in this process's own files: beside the messages, in a space of
//! its own, written by the same commits.
//!
//! Numbers are exact: who was counted is a row, and so is each number. Rows of
//! people are removed once the day is closed.

mod daily;
mod log;
mod rows;

use self::rows::SampleRow;
use super::EmbeddedStore;
use super::committer::Durability;
use super::engine::EngineError;
use super::rows::Space;
use super::staged::Staged;
use crate::analytics::{Day, Sample};
use crate::store::StoreError;

/// Rows removed in one step.
const STEP: usize = 2_000;

impl EmbeddedStore {
    pub(crate) async fn sample(&self, sample: Sample) -> Result<bool, StoreError> {
        self.write(Durability::Synced, false, move |staged| {
            let key = rows::sample(sample.at);
            if staged.get::<SampleRow>(Space::Ledger, key.clone())?.is_some() {
                return Ok(false);
            }
            staged.put(Space::Ledger, key, &SampleRow { online: sample.online });
            Ok(true)
        })
        .await
    }

    pub(crate) async fn samples(&self, from: i64, to: i64) -> Result<Vec<Sample>, StoreError> {
        self.read(move |view| {
            let mut samples = Vec::new();
            let mut after = rows::sample(from.saturating_sub(1).max(-1));
            loop {
                let read = view.engine.scan(Space::Ledger, &rows::samples(), Some(&after), STEP)?;
                let is_last = read.len() < STEP;
                for (key, row) in read {
                    let at = rows::instant(&key)?;
                    if at >= to {
                        return Ok(samples);
                    }
                    let row: SampleRow = rows::decode(&row)?;
                    samples.push(Sample { at, online: row.online });
                    after = key;
                }
                if is_last {
                    return Ok(samples);
                }
            }
        })
        .await
    }

    pub(crate) async fn forget(&self, before: i64, day: Day) -> Result<u64, StoreError> {
        let old = move |key: &[u8], _: &[u8]| Ok(rows::instant(key)? < before);
        let samples = self.remove_while(rows::samples(), old).await?;
        self.forget_days(day).await?;
        Ok(samples)
    }

    /// Removes the rows that begin with `prefix`, from the first on, a step at
    /// a time, for as long as `is_old`; how many.
    async fn remove_while(
        &self,
        prefix: Vec<u8>,
        is_old: impl Fn(&[u8], &[u8]) -> Result<bool, EngineError> + Clone + Send + 'static,
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let (prefix, is_old) = (prefix.clone(), is_old.clone());
            let keys = self
                .read(move |view| {
                    let mut keys = Vec::new();
                    for (key, row) in view.engine.scan(Space::Ledger, &prefix, None, STEP)? {
                        if !is_old(&key, &row)? {
                            break;
                        }
                        keys.push(key);
                    }
                    Ok(keys)
                })
                .await?;
            if keys.is_empty() {
                return Ok(removed);
            }
            removed += u64::try_from(keys.len()).unwrap_or(0);
            let remove = |staged: &mut Staged| {
                keys.into_iter().for_each(|key| staged.remove(Space::Ledger, key));
                Ok(())
            };
            self.write(Durability::Synced, false, remove).await?;
        }
    }
}
