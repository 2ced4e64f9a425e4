//! Sockets on their way to the other process, and connections that hold
//! still.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Channel, HandoverError};
use crate::hub::{Deposits, Freeze, HeldConnection, Hub, Peer};
use crate::types::ConnId;
use crate::wire::pb::handover_message::Message;
use crate::wire::pb::{HandoverGone, HandoverSockets};

/// Sockets of one message.
const BATCH: usize = 100;
/// Messages that were not confirmed yet.
const WINDOW: usize = 2;
/// Copies of sockets that are open at a time.
pub(super) const IN_FLIGHT: usize = BATCH * 2;
/// Longest a batch waits for connections that do not answer: they are seen
/// again later.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Longest the other process may take to confirm.
const CONFIRM: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);

/// What was handed out so far.
pub(super) struct Gathering<'a> {
    channel: &'a Channel,
    freeze: &'a Freeze,
    hub: &'a Hub,
    unconfirmed: usize,
    /// Sockets the other process has.
    copied: HashSet<ConnId>,
    /// Connections that hold still.
    pub(super) held: HashMap<ConnId, HeldConnection>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(channel: &'a Channel, freeze: &'a Freeze, hub: &'a Hub) -> Self {
        let (copied, held) = (HashSet::new(), HashMap::new());
        Self { channel, freeze, hub, unconfirmed: 0, copied, held }
    }

    /// Goes on where another one was.
    pub(super) fn resume(&mut self, copied: &[ConnId]) {
        self.copied.extend(copied);
    }

    /// The sockets the other process has.
    pub(super) fn into_copied(self) -> Vec<ConnId> {
        self.copied.into_iter().collect()
    }

    /// Copies every socket while its connection serves.
    pub(super) async fn copy_all(&mut self) -> Result<(), HandoverError> {
        for batch in self.hub.all().chunks(BATCH) {
            batch.iter().for_each(|peer| peer.outbox.nudge());
            let end = Instant::now() + BATCH_WAIT;
            loop {
                self.pump().await?;
                let is_missing =
                    |peer: &Arc<Peer>| !self.copied.contains(&peer.identity.conn) && !peer.outbox.is_closed();
                if !batch.iter().any(is_missing) || Instant::now() >= end {
                    break;
                }
                let _ = timeout(TICK, self.freeze.deposited()).await;
            }
        }
        Ok(())
    }

    /// Waits until every connection holds still; returns those that do not
    /// before `end`.
    pub(super) async fn hold_all(&mut self, end: Instant) -> Result<Vec<Arc<Peer>>, HandoverError> {
        for batch in self.hub.all().chunks(BATCH) {
            batch.iter().for_each(|peer| peer.outbox.nudge());
            self.pump().await?;
        }
        loop {
            self.pump().await?;
            let mut left = Vec::new();
            if self.held.len() >= self.hub.connections() || Instant::now() >= end {
                left = self.hub.all();
                left.retain(|peer| !self.held.contains_key(&peer.identity.conn));
                // Those about to end are not waited for.
                if left.iter().all(|peer| peer.outbox.is_ending()) || Instant::now() >= end {
                    break Ok(left);
                }
            } else if timeout(TICK, self.freeze.deposited()).await.is_err() {
                left = self.hub.all();
                left.retain(|peer| !self.held.contains_key(&peer.identity.conn));
                if left.iter().all(|peer| peer.outbox.is_ending()) {
                    break Ok(left);
                }
            }
            drop(left);
        }
    }

    /// Waits until the other process has confirmed all sockets.
    pub(super) async fn confirmed(&mut self) -> Result<(), HandoverError> {
        self.pump().await?;
        while self.unconfirmed > 0 {
            self.confirm().await?;
        }
        if self.held.keys().all(|conn| self.copied.contains(conn)) {
            return Ok(());
        }
        Err(HandoverError::Unfit("a socket could not be copied; the descriptor limit is too low".to_owned()))
    }

    /// Passes on what was handed out.
    async fn pump(&mut self) -> Result<(), HandoverError> {
        let Deposits { sockets, held, gone, failed } = self.freeze.take();
        if failed > 0 {
            return Err(HandoverError::Unfit(format!(
                "{failed} sockets could not be copied; the descriptor limit is too low"
            )));
        }
        self.held.extend(held);
        let mut sockets = sockets.into_iter().peekable();
        while sockets.peek().is_some() {
            let batch: Vec<_> = sockets.by_ref().take(BATCH).collect();
            let conn_ids = batch.iter().map(|(conn, _)| conn.0).collect();
            let descriptors: Vec<_> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
            let message = Message::Sockets(HandoverSockets { conn_ids });
            self.channel.send(message, &descriptors, CONFIRM).await?;
            self.copied.extend(batch.iter().map(|(conn, _)| *conn));
            self.unconfirmed += 1;
            while self.unconfirmed >= WINDOW {
                self.confirm().await?;
            }
        }
        if !gone.is_empty() {
            self.copied.retain(|conn| !gone.contains(conn));
            for gone in gone.chunks(1_000) {
                let conn_ids = gone.iter().map(|conn| conn.0).collect();
                self.channel.send(Message::Gone(HandoverGone { conn_ids }), &[], CONFIRM).await?;
            }
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), HandoverError> {
        match self.channel.receive("sockets are confirmed", CONFIRM).await? {
            (Message::Taken(_), _) => {
                self.unconfirmed -= 1;
                Ok(())
            }
            (other, _) => Err(HandoverError::Unexpected(format!("{other:?}"))),
        }
    }
}
