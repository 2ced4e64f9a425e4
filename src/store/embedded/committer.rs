//! The one that writes: a thread that takes what waits, does it as one commit
//! and syncs once for all.
//!
//! After an error of the disk the files are closed and opened again, because
//! neither the engine nor we know what became of the write; meanwhile all work
//! is answered at once with "unavailable". What was told done was on disk
//! before.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info};

use super::engine::{Engine, EngineError, Left};
use super::staged::{Content, Staged};
use super::{EmbeddedStore, Shared};
use crate::store::StoreError;
use crate::telemetry::metrics;

/// Most work of one commit; each lane has at most one piece waiting.
const MOST: usize = 64;
/// Longest wait, behind a commit, for who is known to hand over work.
const GATHER: Duration = Duration::from_micros(500);
/// What needs no sync of its own is on disk after this long.
const LAZY: Duration = Duration::from_secs(1);
/// Pause between two tries to open the files.
const REOPEN_EVERY: Duration = Duration::from_millis(200);
/// Longest to wait for readers to let go of files that are to be closed.
const READERS: Duration = Duration::from_secs(5);
/// An idle committer looks around this often.
const IDLE: Duration = Duration::from_secs(60);

/// How soon something has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Before it is told.
    Synced,
    /// With the next commit, or soon.
    Lazy,
}

/// Tells the outcome of a piece of work.
type Conclude = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Does the work, where there are files to do it on.
type Stage = Box<dyn FnOnce(Option<&mut Staged>) -> Conclude + Send>;

/// A piece of work.
pub(super) struct Job {
    durability: Durability,
    /// Whether it has to find everything before it on disk.
    is_exclusive: bool,
    stage: Stage,
}

/// What the thread is sent.
pub(super) enum Order {
    /// Do this.
    Work(Job),
    /// Finish, close, and say so.
    Close(oneshot::Sender<()>),
    /// The same, but be ready to go on. Said only of files that are whole.
    Suspend(oneshot::Sender<()>),
    /// Open again, if that was ordered before.
    Resume(oneshot::Sender<()>),
}

impl Job {
    /// The work, and where its outcome will be told.
    pub(super) fn new<T: Send + 'static>(
        durability: Durability,
        is_exclusive: bool,
        work: impl FnOnce(&mut Staged) -> Result<T, EngineError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, outcome) = oneshot::channel();
        let stage = Box::new(move |staged: Option<&mut Staged>| -> Conclude {
            let done = staged.map_or(Err(StoreError::Unavailable), |staged| {
                work(staged).map_err(|error| EmbeddedStore::unusable(&error))
            });
            // Nobody waits any more: as if the answer was lost.
            Box::new(move |committed| drop(reply.send(committed.and(done))))
        });
        (Self { durability, is_exclusive, stage }, outcome)
    }
}

/// See above.
pub(super) struct Committer {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    /// Since when something written is not synced.
    unsynced: Option<Instant>,
    /// When the files were last found unusable; `None` = they are open.
    failed: Option<Instant>,
    /// Whether nothing was written since the disk failed: said once.
    is_down: bool,
    /// The files are closed on purpose, and another process's to open.
    is_suspended: bool,
    /// Why the files could not be opened again: said once.
    refusal: String,
    /// Pieces of work that are about to come, and until when they are waited
    /// for.
    coming: (usize, Instant),
}

/// A commit being put together.
#[derive(Default)]
struct Round {
    staged: Option<Staged>,
    concluding: Vec<Conclude>,
    is_synced: bool,
}

impl Committer {
    /// Over open files.
    pub(super) fn new(shared: Arc<Shared>, orders: Receiver<Order>) -> Self {
        Self {
            shared,
            orders,
            unsynced: None,
            failed: None,
            is_down: false,
            is_suspended: false,
            refusal: String::new(),
            coming: (0, Instant::now()),
        }
    }

    /// Works until it is told to close or nobody can send any more.
    pub(super) fn run(mut self) {
        let closed = loop {
            let wait = match (self.unsynced, self.failed) {
                (_, Some(_)) => REOPEN_EVERY,
                (Some(since), _) => LAZY.saturating_sub(since.elapsed()),
                (None, None) => IDLE,
            };
            let first = match self.orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break None,
            };
            if self.failed.is_some_and(|at| at.elapsed() >= REOPEN_EVERY) {
                self.reopen();
            }
            let mut close = None;
            let mut suspend = None;
            let mut round = Round::default();
            let mut next = first;
            let mut taken = 0;
            while let Some(order) = next {
                match order {
                    Order::Work(job) => self.take(job, &mut round),
                    Order::Close(done) => {
                        close = Some(done);
                        break;
                    }
                    Order::Suspend(done) => {
                        suspend = Some(done);
                        break;
                    }
                    Order::Resume(done) => {
                        self.is_suspended = false;
                        self.reopen();
                        let _ = done.send(());
                    }
                }
                taken += 1;
                next = if taken < MOST { self.more() } else { None };
            }
            self.commit(&mut round);
            if close.is_some() {
                break close;
            }
            if let Some(done) = suspend {
                self.suspend(done);
                continue;
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= LAZY) {
                self.sync();
            }
        };
        self.sync();
        self.shared.take_engine(READERS);
        if let Some(done) = closed {
            let _ = done.send(());
        }
    }

    /// What waits, or is about to come.
    fn more(&mut self) -> Option<Order> {
        let (coming, until) = self.coming;
        if coming == 0 {
            return self.orders.try_recv().ok();
        }
        self.orders.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }

    /// Another process is to open the files, if all that was written is known
    /// to be on disk.
    fn suspend(&mut self, done: oneshot::Sender<()>) {
        self.sync();
        let is_synced = self.shared.is_open() && !self.is_down;
        self.is_suspended = true;
        self.failed = None;
        if self.shared.take_engine(READERS) && is_synced {
            let _ = done.send(());
        }
    }

    fn take(&mut self, job: Job, round: &mut Round) {
        if job.is_exclusive {
            self.commit(round);
        }
        if round.staged.is_none() {
            let engine = self.shared.engine();
            if engine.is_none() && !self.is_suspended {
                self.failed.get_or_insert_with(Instant::now);
            }
            round.staged = engine.map(|engine| Staged::new(engine, Arc::clone(&self.shared)));
        }
        self.coming.0 = self.coming.0.saturating_sub(1);
        round.concluding.push((job.stage)(round.staged.as_mut()));
        round.is_synced |= job.durability == Durability::Synced;
    }

    fn commit(&mut self, round: &mut Round) {
        let Round { staged, concluding, is_synced } = std::mem::take(round);
        let outcome = match staged {
            Some(staged) if !staged.is_empty() => self.write(staged.into_content(), is_synced),
            // A duplicate's original was written before, and is synced too
            // before it is told; only what is lazy never was.
            Some(_) | None => Ok(()),
        };
        for conclude in concluding {
            conclude(outcome.clone());
        }
    }

    fn write(&mut self, content: Content, is_synced: bool) -> Result<(), StoreError> {
        let engine = self.shared.engine().ok_or(StoreError::Unavailable)?;
        let started = Instant::now();
        let messages = content.messages.len();
        self.shared.turn.begin();
        let written = engine.write(content.messages, content.rows, is_synced);
        self.coming = (self.shared.turn.end(), Instant::now() + GATHER);
        drop(engine);
        if let Err(error) = written {
            self.fail(&error);
            return Err(StoreError::Unavailable);
        }
        if self.is_down {
            info!(dir = %self.shared.dir.display(), "the disk is written again");
        }
        self.is_down = false;
        self.shared.heads.publish(content.heads);
        metrics().epochs_raised.increment(content.raised);
        if is_synced {
            self.unsynced = None;
            metrics().store_commit_seconds.record(started.elapsed());
            metrics().store_commits.increment(1);
            metrics().store_commit_messages.increment(u64::try_from(messages).unwrap_or(u64::MAX));
        } else if self.unsynced.is_none() {
            self.unsynced = Some(started);
        }
        Ok(())
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_none() {
            return;
        }
        let synced = self.shared.engine().map_or(Ok(()), |engine| engine.sync());
        if let Err(error) = synced {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &EngineError) {
        if !self.is_down {
            let dir = self.shared.dir.display();
            error!(%error, %dir, "the disk failed: sends get RETRY_LATER until it can be written again");
        }
        self.is_down = true;
        metrics().store_disk_errors.increment(1);
        self.unsynced = None;
        self.failed = Some(Instant::now());
        self.shared.take_engine(READERS);
    }

    fn reopen(&mut self) {
        if self.shared.is_open() {
            self.failed = None;
            return;
        }
        match Engine::open(&self.shared.dir, Left::Anyhow, false) {
            Ok(engine) => {
                self.shared.put_engine(engine);
                self.failed = None;
            }
            Err(error) => {
                let (error, dir) = (error.to_string(), self.shared.dir.display());
                if self.refusal != error {
                    error!(error, %dir, "the store cannot be opened again yet");
                }
                self.refusal = error;
                metrics().store_disk_errors.increment(1);
                self.failed = Some(Instant::now());
            }
        }
    }
}
