//! The receivers of the waves, each with its sender.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tidegate::internal::Payload;
use tidegate::proto::{Identify, Position};

use super::super::Stage;
use crate::frame::{Template, envelope};
use crate::latency::Latencies;
use crate::round::Round;
use crate::scan::{Ack, Push, Seen};
use crate::swarm::{Opened, Opening, Swarm, Told};
use crate::witness::Witness;

/// How long a wave may take until everybody has everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// Until what was put off is sent again.
const RETRY: Duration = Duration::from_millis(500);
const TEXT: &str = "while you were away, this was said";

/// A receiver, and what its sender sent it.
struct Receiver {
    conversation: Arc<str>,
    template: Template,
    sent: u32,
    stored: u32,
    /// Sends that are to be repeated, as they were answered.
    again: Vec<u32>,
    seq: i64,
    epoch: u64,
    server_msg_id: String,
    /// It was told that this wave's replay is over.
    is_replayed: bool,
}

pub(super) struct Waves {
    prefix: String,
    all: Vec<Receiver>,
    pub(super) witness: Witness,
    /// Those that have everything in this wave.
    caught_up: u32,
    pub(super) caught: Latencies,
    pub(super) begin: Instant,
    pub(super) holes: u64,
    pub(super) refused: u64,
    pub(super) retried: u64,
    /// When to repeat what was put off.
    retry_at: Option<Instant>,
    pub(super) gone: Vec<String>,
}

impl Waves {
    /// None of them has said anything yet.
    pub(super) fn new(stage: &Stage<'_>, receivers: u32) -> Result<Self> {
        let prefix = format!("{}-", stage.nonce);
        let watched = (stage.watched / 2).min(receivers);
        let mut witness = Witness::of((0..2 * watched).collect(), stage.first_user)?;
        let mut all = Vec::with_capacity(usize::try_from(receivers)?);
        for number in 0..receivers {
            let user = stage.user(2 * number);
            let conversation = format!("p2p:{user}:{}", user + 1);
            if number < watched {
                let user = i64::try_from(user)?;
                witness.enter(&conversation, vec![user, user + 1]);
            }
            let template = Template::text(&conversation, &prefix, TEXT)?;
            all.push(Receiver {
                conversation: conversation.into(),
                template,
                sent: 0,
                stored: 0,
                again: Vec::new(),
                seq: 0,
                epoch: 0,
                server_msg_id: String::new(),
                is_replayed: false,
            });
        }
        Ok(Self {
            prefix,
            all,
            witness,
            caught_up: 0,
            caught: Latencies::default(),
            begin: Instant::now(),
            holes: 0,
            refused: 0,
            retried: 0,
            retry_at: None,
            gone: Vec::new(),
        })
    }

    pub(super) fn connected(&mut self, clients: std::ops::Range<u32>) {
        let now = Instant::now();
        for index in clients {
            if self.witness.watches(index) {
                self.witness.connected(index);
                self.witness.told(index, now, &Told::Said(Seen::Ready));
            }
        }
    }

    /// Every sender sends `count` messages.
    pub(super) fn say(&mut self, swarm: &mut Swarm, count: u32) -> Result<()> {
        let mut out = Vec::new();
        for (number, receiver) in (0_u32..).zip(&mut self.all) {
            for _ in 0..count {
                receiver.sent += 1;
                receiver.template.write(receiver.sent, &mut out);
                let id = format!("{}{:010}", self.prefix, receiver.sent);
                if self.witness.watches(2 * number) {
                    self.witness.sent(2 * number, &receiver.conversation, &id, TEXT);
                }
            }
            swarm.send(2 * number, &out)?;
            out.clear();
        }
        Ok(())
    }

    /// Repeats what was put off, in order.
    fn repeat(&mut self, swarm: &mut Swarm) -> Result<()> {
        if self.retry_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.retry_at = None;
        let mut out = Vec::new();
        for (number, receiver) in (0_u32..).zip(&mut self.all) {
            receiver.again.sort_unstable();
            for again in std::mem::take(&mut receiver.again) {
                receiver.template.write(again, &mut out);
            }
            if !out.is_empty() {
                swarm.send(2 * number, &out)?;
                out.clear();
            }
        }
        Ok(())
    }

    pub(super) fn all_stored(&self) -> bool {
        let stored: u64 = self.all.iter().map(|receiver| u64::from(receiver.stored)).sum();
        let sent: u64 = self.all.iter().map(|receiver| u64::from(receiver.sent)).sum();
        stored + self.refused >= sent
    }

    pub(super) fn all_have_all(&self) -> bool {
        self.all.iter().all(|receiver| receiver.seq >= i64::from(receiver.stored))
    }

    pub(super) fn wait(
        &mut self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        round: &mut Round,
        is_over: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !is_over(self) {
            if Instant::now() > end || swarm.open() == 0 {
                round.problem("messages were not stored or not delivered in time");
                return Ok(());
            }
            self.repeat(swarm)?;
            swarm.keep_alive()?;
            swarm.turn(Instant::now() + LOOK, |index, at, told| self.told(index, at, &told))?;
            stage.progress.tick(Instant::now());
        }
        Ok(())
    }

    /// All receivers connect, say what they have, and get the rest.
    pub(super) fn come_back(
        &mut self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        round: &mut Round,
    ) -> Result<Opened> {
        let receivers = u32::try_from(self.all.len())?;
        let mut requests = Vec::with_capacity(self.all.len());
        for (number, receiver) in (0_u32..).zip(&mut self.all) {
            receiver.is_replayed = false;
            let have = Position {
                conversation_id: receiver.conversation.to_string(),
                epoch: receiver.epoch,
                seq: receiver.seq,
                server_msg_id: receiver.server_msg_id.clone(),
                ..Position::default()
            };
            let index = 2 * number + 1;
            let mut request = stage.side.targets.request(index, stage.user(index), None, true)?.into_bytes();
            let identify = Identify { have: vec![have], ..Identify::default() };
            request.extend(envelope(Payload::Identify(identify)));
            requests.push(request);
            self.witness.connected(index);
        }
        (self.caught_up, self.begin) = (0, Instant::now());
        let mut request = |index: u32| {
            let place = usize::try_from(index / 2)?;
            Ok(requests.get_mut(place).map(std::mem::take).unwrap_or_default())
        };
        let clients = (0..receivers).map(|number| 2 * number + 1).collect();
        let mut opening = Opening::new(clients, stage.opening, None);
        let end = Instant::now() + PATIENCE;
        while !opening.is_over() || self.caught_up < receivers {
            if Instant::now() > end {
                round.problem(format!(
                    "{} receivers did not get what they missed",
                    receivers - self.caught_up
                ));
                break;
            }
            let until = opening.step(swarm, &stage.side.targets, &mut request)?;
            swarm.turn(until, |index, at, told| {
                opening.told(index, at, &told);
                let before = self.caught_up;
                self.told(index, at, &told);
                stage.progress.count(u64::from(self.caught_up - before));
            })?;
            stage.progress.tick(Instant::now());
        }
        let opened = opening.finish();
        if let Some(error) = &opened.failure {
            round.problem(format!("{} receivers did not come back: {error:#}", opened.failed));
        }
        Ok(opened)
    }

    fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) {
        self.witness.told(index, at, told);
        match told {
            Told::Said(Seen::Ack(ack)) => self.answered(index, ack),
            Told::Said(Seen::Push(push, _)) => self.arrived(index, push),
            Told::Said(Seen::ReplayEnd { more: false, .. }) => {
                let begin = self.begin;
                let Some(receiver) = self.of(index) else { return };
                if !std::mem::replace(&mut receiver.is_replayed, true)
                    && receiver.seq >= i64::from(receiver.stored)
                {
                    self.caught_up += 1;
                    self.caught.record(at.saturating_duration_since(begin));
                }
            }
            Told::Gone(why) => self.gone.push(format!("{why:#}")),
            Told::Said(Seen::Error { message, .. }) => {
                self.gone.push(String::from_utf8_lossy(message).into_owned());
            }
            Told::Said(_) => {}
        }
    }

    fn answered(&mut self, index: u32, ack: &Ack<'_>) {
        if !ack.client_msg_id.starts_with(self.prefix.as_bytes()) {
            return;
        }
        let number = message_number(ack.client_msg_id);
        match (ack.status, self.of(index), number) {
            (Ack::STORED, Some(receiver), _) => receiver.stored += 1,
            (_, Some(receiver), Some(number)) if Ack::PUT_OFF.contains(&ack.error) => {
                receiver.again.push(number);
                self.retried += 1;
                self.retry_at = self.retry_at.or_else(|| Some(Instant::now() + RETRY));
            }
            _ => self.refused += 1,
        }
    }

    fn arrived(&mut self, index: u32, push: &Push<'_>) {
        if index.is_multiple_of(2) {
            return;
        }
        let Some(receiver) = self.of(index) else { return };
        if push.seq <= receiver.seq {
            return;
        }
        let is_hole = push.seq != receiver.seq + 1;
        (receiver.seq, receiver.epoch) = (push.seq, push.epoch);
        receiver.server_msg_id.clear();
        receiver.server_msg_id.push_str(&String::from_utf8_lossy(push.server_msg_id));
        self.holes += u64::from(is_hole);
    }

    fn of(&mut self, index: u32) -> Option<&mut Receiver> {
        self.all.get_mut(usize::try_from(index / 2).ok()?)
    }
}

/// The digits at the end.
fn message_number(client_msg_id: &[u8]) -> Option<u32> {
    let digits = client_msg_id.rsplit(|byte| *byte == b'-').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
