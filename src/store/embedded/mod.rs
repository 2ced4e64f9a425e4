//! The log in this process's own files: what a gateway without Redis keeps.
//!
//! The engine is fjall, a log-structured one. Beside redb it commits a
//! gateway's small batches three to four times as fast and writes a tenth of
//! the bytes. Its weak side is closing, which waits for the merging of tables,
//! and opening, which reads the journal back: seconds on a busy disk, but some
//! tens of milliseconds after [`EmbeddedStore::prepare_close`] (`benches/README.md`).
//!
//! - One thread writes (`committer`). What waits at the same time is one
//!   commit and one fsync; an append is told once that is done.
//! - A message is two rows: itself, and its sender's id, which stands for it
//!   for 7 to 14 days: 60 to 100 bytes on disk, by the length of the id.
//! - Positions are not synced on their own: they are on disk within a second,
//!   or with the next commit.
//! - Who is interested in a group lives in memory: it is this process.
//! - The conversation's epoch rises with its next message when the store's own
//!   history is another one, as it is after a backup was brought back.
//! - A disk that fails, or is full, costs RETRY_LATER while it lasts. What was
//!   being written then is written again before anything is answered from it.
//! - After a kill or a power cut it opens, without what was being written; over
//!   damage to what was synced it does not, and says what to do (`journal`).

mod append;
mod committer;
mod engine;
mod error;
mod groups;
mod heads;
mod journal;
mod ledger;
mod members;
mod read;
mod rows;
mod shared;
mod staged;
#[cfg(test)]
mod tests;
mod trim;
mod turn;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::append::Entry;
use self::committer::{Committer, Durability, Job, Order};
pub(crate) use self::engine::Left;
use self::engine::{Engine, EngineError};
use self::shared::Shared;
use self::staged::Staged;
use super::{Append, Appended, Appends, Audience, Cursor, Progress, StoreError};
use crate::types::{ConversationId, GatewayRef};

/// Longest to wait for the thread, which waits for the disk.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest to prepare a close; it ends before it is no longer waited for.
const SETTLE: Duration = Duration::from_secs(8);

/// The store in a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{dir}: {source}")]
pub(crate) struct OpenError {
    dir: String,
    source: EngineError,
}

/// One gateway's store on its own disk; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct EmbeddedStore {
    shared: Arc<Shared>,
    /// Holds at most one order per caller, who waits for it.
    orders: mpsc::Sender<Order>,
}

impl EmbeddedStore {
    /// Opens the store in `data_dir`, or makes it; blocks. With `restored`
    /// every conversation begins a new history with its next message. The
    /// receiver ends when the store's thread does.
    pub(crate) fn open(
        data_dir: &Path,
        left: Left,
        restored: bool,
    ) -> Result<(Self, oneshot::Receiver<()>), OpenError> {
        let dir = engine::place(data_dir);
        let failed = |source| OpenError { dir: dir.display().to_string(), source };
        let engine = Engine::open(&dir, left, restored).map_err(failed)?;
        let shared = Arc::new(Shared::new(dir.clone(), engine));
        let (orders, received) = mpsc::channel();
        let (alive, ended) = oneshot::channel();
        let committer = Committer::new(Arc::clone(&shared), received);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                committer.run();
                drop(alive);
            })
            .map_err(|error| failed(EngineError::Files(error)))?;
        Ok((Self { shared, orders }, ended))
    }

    /// Shortens the close that is to come, and the opening after it: where
    /// much was written since the last time, it becomes tables, which takes
    /// seconds. Serving goes on meanwhile.
    pub(crate) async fn prepare_close(&self) -> Result<(), StoreError> {
        self.read(|view| view.engine.settle(&view.shared.dir, SETTLE)).await
    }

    /// Finishes what was asked for and closes the files. Afterwards nothing is
    /// answered any more.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).is_ok() && timeout(DEADLINE, closed).await.is_err() {
            tracing::warn!("the store was not closed in time; it is read back at the next start");
        }
    }

    /// Finishes what was asked for and closes the files, for another process to
    /// open as [`Left::Whole`]; until [`Self::resume`] nothing is answered. An
    /// error where a disk that failed, or a reader, stands against that.
    pub(crate) async fn suspend(&self) -> Result<(), StoreError> {
        self.order(Order::Suspend).await
    }

    /// Opens the files again.
    pub(crate) async fn resume(&self) -> Result<(), StoreError> {
        self.order(Order::Resume).await
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        self.orders.send(order(done)).map_err(|_| StoreError::Unavailable)?;
        match timeout(DEADLINE, outcome).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Unavailable),
        }
    }

    /// This gateway has members of these groups online, as was known to the
    /// process it has replaced.
    pub(crate) fn register(&self, gateway: &GatewayRef, groups: &[ConversationId]) {
        groups.iter().for_each(|group| self.shared.register(gateway, group));
    }

    /// Has the thread do it.
    async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        is_exclusive: bool,
        work: impl FnOnce(&mut Staged) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, outcome) = Job::new(durability, is_exclusive, work);
        self.orders.send(Order::Work(job)).map_err(|_| StoreError::Unavailable)?;
        match timeout(DEADLINE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// Reads where waiting for the disk harms nobody.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&read::View) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let engine = self.shared.engine().ok_or(StoreError::Unavailable)?;
        let view = read::View { engine, shared: Arc::clone(&self.shared) };
        let reading = spawn_blocking(move || read(&view).map_err(|error| Self::unusable(&error)));
        match timeout(DEADLINE, reading).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable),
        }
    }

    fn unusable(error: &EngineError) -> StoreError {
        match error {
            EngineError::Damaged(why) => StoreError::Broken(why.clone()),
            error => {
                tracing::debug!(%error, "store");
                StoreError::Unavailable
            }
        }
    }

    fn audience(&self, group: &ConversationId, mver: u64, members: u64) -> Audience {
        Audience { mver, members, gateways: self.shared.interested(group) }
    }

    /// Waits while a commit is under way, 50 ms at most: what is gathered
    /// meanwhile goes with the next one.
    pub(super) async fn turn(&self) {
        self.shared.turn.wait().await;
    }

    pub(super) async fn append(&self, batch: &[&Append]) -> Appends {
        let entries: Vec<Entry> = batch.iter().map(|append| Entry::new(append)).collect();
        let work = move |staged: &mut Staged| {
            let one = |entry: Entry| {
                let group = matches!(entry.conversation, ConversationId::Group(_));
                let group = group.then(|| entry.conversation.clone());
                let outcome = append::append(staged, entry).map_err(|error| Self::unusable(&error));
                let audience = match (&outcome, group) {
                    (Ok(Appended::Stored { .. } | Appended::Duplicate { .. }), Some(group)) => {
                        staged.head(&group).ok().flatten().map(|head| (group, head.mver, head.members))
                    }
                    _ => None,
                };
                (outcome, audience)
            };
            Ok(entries.into_iter().map(one).collect::<Vec<_>>())
        };
        let mut appends = Appends::default();
        match self.write(Durability::Synced, false, work).await {
            Ok(outcomes) => {
                for (outcome, audience) in outcomes {
                    appends.outcomes.push(outcome);
                    if let Some((group, mver, members)) = audience {
                        let audience = Arc::new(self.audience(&group, mver, members));
                        appends.audiences.insert(group, audience);
                    }
                }
            }
            Err(error) => appends.outcomes = batch.iter().map(|_| Err(error.clone())).collect(),
        }
        appends
    }

    pub(super) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Option<Cursor>>, StoreError> {
        let progress = batch.to_vec();
        let conversations: Vec<_> = batch.iter().map(|progress| progress.conversation.clone()).collect();
        let work = move |staged: &mut Staged| {
            let advance = |progress: &Progress| match groups::advance(staged, progress) {
                Err(EngineError::Damaged(why)) => {
                    tracing::error!(conversation = %progress.conversation, why, "position not written");
                    Ok(None)
                }
                advanced => advanced,
            };
            progress.iter().map(advance).collect::<Result<Vec<_>, _>>()
        };
        let advanced = self.write(Durability::Lazy, false, work).await?;
        let cursor = |(conversation, advanced): (ConversationId, Option<(Cursor, u64, u64)>)| {
            let (mut cursor, mver, members) = advanced?;
            if matches!(conversation, ConversationId::Group(_)) {
                cursor.audience = Some(Arc::new(self.audience(&conversation, mver, members)));
            }
            Some(cursor)
        };
        Ok(conversations.into_iter().zip(advanced).map(cursor).collect())
    }
}
