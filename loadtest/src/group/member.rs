//! One member: takes what is pushed, pulls when told, and says what it has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate::internal::Payload;
use tidegate::proto::{Ack, AckStatus, MessageType, Receipt, SendMessageReq, SyncReq, send_message_req};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::frame;
use crate::peer::Peer;

/// How long a message may take to be stored.
const STORED: Duration = Duration::from_secs(20);

/// What all members do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Receive.
    Listen,
    /// Say once what they have.
    Confirm,
    /// End.
    Leave,
}

/// A message that a member has got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) seq: i64,
    pub(super) at: Instant,
}

/// A member that does not send.
#[derive(Debug)]
pub(super) struct Member {
    peer: Peer,
    group: Arc<str>,
    reads: bool,
    arrivals: mpsc::Sender<Copy>,
    last: i64,
    /// When to come for what was only announced.
    pull_at: Option<Instant>,
    faults: u64,
}

impl Member {
    /// Of a connection just opened, to a group without a message.
    pub(super) const fn new(peer: Peer, group: Arc<str>, reads: bool, arrivals: mpsc::Sender<Copy>) -> Self {
        Self { peer, group, reads, arrivals, last: 0, pull_at: None, faults: 0 }
    }

    /// Goes through the phases; returns how many messages came twice or out
    /// of order.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> Result<u64> {
        loop {
            // All arms are cancel-safe: what was read is kept by the peer.
            tokio::select! {
                read = self.peer.read() => {
                    read?;
                    self.take()?;
                }
                changed = phases.changed() => {
                    changed.context("the scenario has ended")?;
                    let phase = *phases.borrow_and_update();
                    match phase {
                        Phase::Listen => {}
                        Phase::Confirm => self.peer.write(&self.confirmation()).await?,
                        Phase::Leave => return Ok(self.faults),
                    }
                }
                () = sleep_until(self.pull_at.unwrap_or_else(Instant::now)), if self.pull_at.is_some() => {
                    self.pull_at = None;
                    self.peer.write(&self.pull()).await?;
                }
            }
        }
    }

    fn take(&mut self) -> Result<()> {
        let Self { peer, arrivals, last, pull_at, faults, .. } = self;
        let at = Instant::now();
        let mut arrived = |seq: i64| {
            *faults += u64::from(seq != *last + 1);
            *last = seq.max(*last);
            // Nobody waits for the last ones any more.
            let _ = arrivals.try_send(Copy { seq, at });
        };
        peer.each(|payload| {
            match payload {
                Some(Payload::Push(push)) => arrived(push.seq),
                Some(Payload::PushBatch(batch)) => batch.messages.iter().for_each(|push| arrived(push.seq)),
                Some(Payload::SyncResp(page)) => {
                    page.messages.iter().for_each(|push| arrived(push.seq));
                    *pull_at = page.has_more.then_some(at);
                }
                Some(Payload::Hint(hint)) => {
                    *pull_at = Some(at + Duration::from_millis(u64::from(hint.pull_delay_ms)));
                }
                Some(Payload::Error(error)) => bail!("{}", error.message),
                _ => {}
            }
            Ok(())
        })
    }

    fn pull(&self) -> Vec<u8> {
        frame::envelope(Payload::Sync(SyncReq {
            conversation_id: self.group.to_string(),
            from_seq: self.last + 1,
            limit: 500,
            ..SyncReq::default()
        }))
    }

    fn confirmation(&self) -> Vec<u8> {
        let conversation_id = self.group.to_string();
        frame::envelope(if self.reads {
            Payload::Read(Receipt { conversation_id, read_seq: self.last, ..Receipt::default() })
        } else {
            let status = AckStatus::Delivered.into();
            Payload::Ack(Ack { conversation_id, seq: self.last, status, ..Ack::default() })
        })
    }
}

/// Sends a message; returns its seq once it is stored.
pub(super) async fn send(sender: &mut Peer, group: &str, number: u32, text: &str) -> Result<i64> {
    let request = SendMessageReq {
        conversation_id: group.to_owned(),
        client_msg_id: format!("{number}"),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent(text.to_owned())),
        ..SendMessageReq::default()
    };
    sender.write(&frame::envelope(Payload::Send(request))).await?;
    let answered = async {
        let mut seq = None;
        loop {
            sender.each(|payload| {
                match payload {
                    Some(Payload::Ack(ack)) if ack.status() == AckStatus::Stored => seq = Some(ack.seq),
                    Some(Payload::Ack(ack)) if ack.status() == AckStatus::Failed => {
                        bail!("refused: {}", ack.error.unwrap_or_default().message);
                    }
                    _ => {}
                }
                Ok(())
            })?;
            match seq {
                Some(seq) => return Ok(seq),
                None => sender.read().await?,
            }
        }
    };
    timeout(STORED, answered).await.context("not stored in time")?
}
