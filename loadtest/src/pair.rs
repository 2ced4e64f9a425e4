//! One sender and one receiver, seen by one task: no clock but one, and
//! nothing shared.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate::internal::Payload;
use tidegate::proto::{Ack, AckStatus, MessageType, Push, SendMessageReq, send_message_req};
use tokio::time::{Instant, sleep};

use crate::frame::{Template, envelope};
use crate::pace::Pace;
use crate::peer::Peer;
use crate::report::Latencies;
use crate::verdict::{Faults, Ledger};

/// How long the last acks and pushes may take.
const DRAIN: Duration = Duration::from_secs(10);

/// What is sent and when.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The two users' conversation.
    pub(crate) conversation: String,
    /// Precedes each clientMsgId; differs from run to run.
    pub(crate) prefix: String,
    /// Bytes of text.
    pub(crate) size: usize,
    /// Whether the receiver confirms what it got.
    pub(crate) confirm: bool,
    /// Figures are taken from here …
    pub(crate) begin: Instant,
    /// … to here.
    pub(crate) end: Instant,
}

/// What a pair saw between `begin` and `end`, and the verdict on all of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Acknowledged as stored.
    pub(crate) acked: u64,
    /// Delivered, each counted once.
    pub(crate) delivered: u64,
    /// From due to ack.
    pub(crate) ack: Latencies,
    /// From due to push.
    pub(crate) delivery: Latencies,
    /// The verdict.
    pub(crate) faults: Faults,
}

struct Pair {
    plan: Plan,
    pace: Pace,
    ledger: Ledger,
    /// When each was due that is not both acked and delivered.
    due: BTreeMap<u32, (Instant, u8)>,
    outcome: Outcome,
    /// Highest seq to confirm.
    confirm: i64,
}

/// Sends, receives and judges.
pub(crate) async fn run(mut sender: Peer, mut receiver: Peer, plan: Plan, pace: Pace) -> Result<Outcome> {
    let mut template = Template::new(request(&plan))?;
    let end = plan.end;
    let mut pair = Pair {
        plan,
        pace,
        ledger: Ledger::default(),
        due: BTreeMap::new(),
        outcome: Outcome::default(),
        confirm: 0,
    };
    let (mut next, mut out) = (0_u32, Vec::new());
    let timer = sleep(Duration::ZERO);
    tokio::pin!(timer);
    loop {
        let now = Instant::now();
        while let Some(due) = pair.pace.take(now) {
            pair.ledger.sent(next);
            pair.due.insert(next, (due, 0));
            template.write(next, &mut out);
            next += 1;
        }
        if !out.is_empty() {
            sender.write(&out).await?;
            out.clear();
        }
        if pair.plan.confirm && pair.confirm > 0 {
            receiver.write(&confirmation(&pair.plan, std::mem::take(&mut pair.confirm))).await?;
        }
        let over = pair.pace.is_over(now);
        if over && pair.ledger.is_settled() {
            break;
        }
        let wake = if over { end + DRAIN } else { pair.pace.wake() };
        if timer.deadline() != wake {
            timer.as_mut().reset(wake);
        }
        // All arms are cancel-safe: what was read is kept by the peers.
        tokio::select! {
            read = sender.read() => read.context("sender")?,
            read = receiver.read() => read.context("receiver")?,
            () = &mut timer => {
                if over {
                    break;
                }
            }
        }
        let now = Instant::now();
        sender.each(|payload| pair.on_sender(payload, now)).context("sender")?;
        receiver.each(|payload| pair.on_receiver(payload, now)).context("receiver")?;
    }
    pair.outcome.faults = pair.ledger.judge();
    Ok(pair.outcome)
}

impl Pair {
    fn on_sender(&mut self, payload: Option<Payload>, now: Instant) -> Result<()> {
        let Some(Payload::Ack(ack)) = payload else { return Ok(()) };
        let Some(number) = self.number(&ack.client_msg_id) else { return Ok(()) };
        self.pace.answered();
        if ack.status() != AckStatus::Stored {
            self.ledger.refused(number);
            self.due.remove(&number);
            return Ok(());
        }
        self.ledger.stored(number, ack.seq);
        if let Some(latency) = self.elapsed(number, now) {
            self.outcome.acked += 1;
            self.outcome.ack.record(latency);
        }
        Ok(())
    }

    fn on_receiver(&mut self, payload: Option<Payload>, now: Instant) -> Result<()> {
        match payload {
            Some(Payload::Push(push)) => self.on_push(&push, now),
            Some(Payload::PushBatch(batch)) => batch.messages.iter().for_each(|push| self.on_push(push, now)),
            Some(Payload::Hint(_)) => bail!("the server asks to pull, which this scenario does not do"),
            Some(Payload::Kick(kick)) => bail!("kicked: {:?}", kick.reason()),
            _ => {}
        }
        Ok(())
    }

    fn on_push(&mut self, push: &Push, now: Instant) {
        // Of an earlier run with the same users.
        let Some(number) = self.number(&push.client_msg_id) else { return };
        self.confirm = self.confirm.max(push.seq);
        if self.ledger.delivered(number, push.seq)
            && let Some(latency) = self.elapsed(number, now)
        {
            self.outcome.delivered += 1;
            self.outcome.delivery.record(latency);
        }
    }

    /// How long one of the two ways took, if it ended while figures are taken.
    fn elapsed(&mut self, number: u32, now: Instant) -> Option<Duration> {
        let (due, ended) = self.due.get_mut(&number)?;
        let latency = now.saturating_duration_since(*due);
        *ended += 1;
        if *ended == 2 {
            self.due.remove(&number);
        }
        (now >= self.plan.begin && now < self.plan.end).then_some(latency)
    }

    fn number(&self, id: &str) -> Option<u32> {
        id.strip_prefix(&self.plan.prefix)?.parse().ok()
    }
}

fn request(plan: &Plan) -> Payload {
    Payload::Send(SendMessageReq {
        conversation_id: plan.conversation.clone(),
        client_msg_id: format!("{}{}", plan.prefix, Template::PLACE),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent("x".repeat(plan.size))),
        ..SendMessageReq::default()
    })
}

fn confirmation(plan: &Plan, seq: i64) -> Vec<u8> {
    envelope(Payload::Ack(Ack {
        conversation_id: plan.conversation.clone(),
        seq,
        status: AckStatus::Delivered.into(),
        ..Ack::default()
    }))
}
