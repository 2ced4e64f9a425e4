//! The old process's side.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::precopy::Gathering;
use super::spawn::Newborn;
use super::state::{FORMAT, OLDEST_FORMAT, Summary, Writer};
use super::writing::{Written, unfit, write_connections};
use super::{Channel, Facts, HandoverError, Program, Report, budget};
use crate::hub::{HeldConnection, Peer};
use crate::pipeline::{Inbox, Ports};
use crate::session::Context;
use crate::telemetry::Recorder;
use crate::types::{ConnId, monotonic_ms, unix_ms};
use crate::wire::pb::handover_message::Message;
use crate::wire::pb::{HandoverCommit, HandoverCut, HandoverHello, HandoverState, HandoverWelcome};

/// Longest the new process may take to say who it is, and then to be ready,
/// which includes finding Redis.
const HELLO: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(30);
/// Longest a message may take to be taken.
const SEND: Duration = Duration::from_secs(5);
/// Longest the new process may take to say that it serves. One that does not
/// is ended, because nothing else can: a cold start needs what it holds.
const STARTED: Duration = Duration::from_secs(15);

/// What is handed over, and what the handover works with.
pub(crate) struct Estate {
    /// What the connections share.
    pub context: Arc<Context>,
    /// What other gateways send goes here.
    pub inbox: Arc<Inbox>,
    /// The metrics.
    pub recorder: Recorder,
    /// What must be the same there.
    pub facts: Facts,
    /// Listeners and the lock of the data directory, by name.
    pub descriptors: Vec<(&'static str, OwnedFd)>,
}

/// A new process that is ready and has a copy of every socket.
pub(crate) struct Prepared {
    newborn: Newborn,
    channel: Channel,
    hello: HandoverHello,
    format: u32,
    copied: Vec<ConnId>,
}

/// What was agreed on; nothing was committed yet.
struct Agreed {
    held: HashMap<ConnId, HeldConnection>,
    left: Vec<Arc<Peer>>,
    mid_frame: u64,
    with_unsent: u64,
}

/// Connections that stayed behind, and what became of the others.
#[derive(Debug)]
pub(crate) struct Committed {
    /// They are to be asked to come back.
    pub left: Vec<Arc<Peer>>,
    /// What is answered.
    pub report: Report,
    /// Whether the new process has said that it serves.
    pub is_started: bool,
}

impl Estate {
    pub(super) fn ports(&self) -> &Arc<Ports> {
        self.context.pipeline.ports()
    }

    /// Starts `program`, has it get ready, and copies the sockets to it. Until
    /// this is done nothing is changed; on an error the new process is ended.
    pub(crate) async fn prepare(&self, program: &Program) -> Result<Prepared, HandoverError> {
        let hub = &self.ports().hub;
        let queued = hub.all().iter().map(|peer| u64::from(peer.outbox.backlog().1)).sum();
        budget::check(u64::try_from(hub.connections()).unwrap_or(u64::MAX), queued)?;
        program.check().await?;
        let (newborn, channel) = program.start()?;
        let hello = match channel.receive("the new process says who it is", HELLO).await? {
            (Message::Hello(hello), _) => hello,
            (other, _) => return Err(HandoverError::Unexpected(format!("{other:?}"))),
        };
        if let Some(name) = self.facts.conflict(&hello.facts) {
            return Err(HandoverError::Unfit(format!(
                "{name} is configured otherwise than in the running process: that takes a restart"
            )));
        }
        let format = FORMAT.min(hello.newest_format);
        if format < OLDEST_FORMAT || format < hello.oldest_format {
            return Err(HandoverError::Unfit(format!(
                "the new process reads state formats {} to {}, this one writes {OLDEST_FORMAT} to {FORMAT}",
                hello.oldest_format, hello.newest_format
            )));
        }
        self.welcome(&channel, format).await?;
        // Meanwhile the store does what would otherwise be waited for later.
        let (ready, _) = tokio::join!(
            channel.receive("the new process is ready", READY),
            self.ports().store.prepare_close()
        );
        let (Message::Ready(_), _) = ready? else {
            return Err(HandoverError::Unexpected("it is not ready".to_owned()));
        };
        self.context.freeze.begin();
        let mut gathering = Gathering::new(&channel, &self.context.freeze, hub);
        gathering.copy_all().await?;
        gathering.confirmed().await?;
        let copied = gathering.into_copied();
        Ok(Prepared { newborn, channel, hello, format, copied })
    }

    async fn welcome(&self, channel: &Channel, format: u32) -> Result<(), HandoverError> {
        let own = &self.ports().own;
        let welcome = HandoverWelcome {
            format,
            gateway_id: own.id.to_string(),
            epoch: own.epoch.0,
            monotonic_ms: monotonic_ms(),
            descriptors: self.descriptors.iter().map(|(name, _)| (*name).to_owned()).collect(),
            node: u32::from(self.ports().ids.lock().node()),
        };
        let descriptors: Vec<_> = self.descriptors.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        channel.send(Message::Welcome(welcome), &descriptors, SEND).await
    }

    /// Has everything hold still, hands over the rest, and commits, all before
    /// `deadline`. On an error nothing has happened to any client, and the
    /// caller has it all go on ([`Self::resume`]).
    pub(crate) async fn commit(
        &self,
        prepared: Prepared,
        deadline: Instant,
    ) -> Result<Committed, HandoverError> {
        let frozen_at = Instant::now();
        let agreed = timeout_at(deadline, self.agree(&prepared, deadline)).await;
        let agreed = agreed.map_err(|_| HandoverError::Deadline("the pause has been long enough"))??;
        // Whole or not at all, and with it everything is the other's.
        prepared.channel.send(Message::Commit(HandoverCommit {}), &[], SEND).await?;
        let Agreed { held, left, mid_frame, with_unsent } = agreed;
        self.context.freeze.conclude(held.keys().copied().collect(), &left);
        let started = prepared.channel.receive("the new process serves", STARTED).await;
        let is_started = matches!(started, Ok((Message::Started(_), _)));
        let pause = frozen_at.elapsed();
        let Prepared { newborn, hello, .. } = prepared;
        let pid = newborn.pid();
        if is_started {
            newborn.let_go();
        }
        let report = Report {
            moved: u64::try_from(held.len()).unwrap_or(u64::MAX),
            mid_frame,
            with_unsent,
            drained: u64::try_from(left.len()).unwrap_or(u64::MAX),
            pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            pid,
            build: hello.build,
        };
        Ok(Committed { left, report, is_started })
    }

    /// Everything up to the commit.
    async fn agree(&self, prepared: &Prepared, deadline: Instant) -> Result<Agreed, HandoverError> {
        let Prepared { channel, format, .. } = prepared;
        let (ports, frozen_at) = (self.ports(), (monotonic_ms(), unix_ms()));
        let begun = Instant::now();
        let mark = fastrand::u64(1..);
        ports.bus.expect_mark(mark);
        channel.send(Message::Cut(HandoverCut { mark }), &[], SEND).await?;
        self.context.freeze.hold();
        let mut gathering = Gathering::new(channel, &self.context.freeze, &ports.hub);
        gathering.resume(&prepared.copied);
        // The other half of the time is for what follows.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let left = gathering.hold_all(Instant::now() + half).await?;
        gathering.confirmed().await?;
        let held = std::mem::take(&mut gathering.held);
        let still = begun.elapsed();
        tokio::select! {
            // It has nothing to say now: this is its end, or its refusal.
            said = channel.receive("nothing", STARTED) => {
                return Err(said.map_or_else(|why| why, |said| HandoverError::Unexpected(format!("{said:?}"))));
            }
            () = self.finish_work(&held) => {}
        }
        let settled = begun.elapsed();
        let mut writer = Writer::in_memory(*format).map_err(HandoverError::io("state"))?;
        self.write_common(&mut writer, frozen_at, &held).await?;
        // The store is closed while the records are written.
        let writing = tokio::task::spawn_blocking(move || write_connections(writer, held));
        let (closed, written) = tokio::join!(ports.store.suspend(), writing);
        let store_closed = closed.map_err(|error| unfit("store", &error))?;
        let written = written.map_err(|error| unfit("state", &error))?;
        let Written { held, memory, summary, mid_frame, with_unsent } =
            written.map_err(HandoverError::io("state"))?;
        let written = begun.elapsed();
        self.send_state(channel, &memory, summary, held.len(), store_closed).await?;
        debug!(?still, ?settled, ?written, staged = ?begun.elapsed(), "agreed");
        Ok(Agreed { held, left, mid_frame, with_unsent })
    }

    /// Waits until everything that was begun is done.
    async fn finish_work(&self, held: &HashMap<ConnId, HeldConnection>) {
        self.ports().bus.mark_passed().await;
        self.context.pipeline.settle(&self.inbox).await;
        while !held.values().all(|held| held.peer.is_answered()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn send_state(
        &self,
        channel: &Channel,
        memory: &OwnedFd,
        summary: Summary,
        connections: usize,
        store_closed: bool,
    ) -> Result<(), HandoverError> {
        let Summary { records, bytes, digest } = summary;
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        let state = HandoverState { records, bytes, digest, connections, store_closed };
        channel.send(Message::State(state), &[memory.as_fd()], SEND).await?;
        // The caller's deadline is nearer.
        match channel.receive("the new process has everything", STARTED).await? {
            (Message::Staged(staged), _) if (staged.connections, staged.digest) == (connections, digest) => {
                Ok(())
            }
            (other, _) => Err(HandoverError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Everything goes on here after a handover that failed.
    pub(crate) async fn resume(&self, pause: Duration) {
        let ports = self.ports();
        if let Err(error) = ports.store.resume().await {
            tracing::error!(%error, "the store is not open again");
        }
        ports.bus.resume(None).await;
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        ports.hub.all().iter().for_each(|peer| peer.forgive(pause_ms));
        ports.pulse.go_on();
        self.context.freeze.thaw(&ports.hub);
    }
}
