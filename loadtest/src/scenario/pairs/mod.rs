//! Pairs of clients, and what became of every message: acknowledged as stored
//! it must arrive, in order, and with the seq it was acknowledged with.

mod pair;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use anyhow::Result;
use tidegate::internal::Payload;
use tidegate::proto::{Ack as WireAck, AckStatus};

use self::pair::Pair;
use crate::frame::{Template, envelope};
use crate::latency::Latencies;
use crate::numbers::float;
use crate::progress::Progress;
use crate::round::Round;
use crate::scan::{Ack, Push, Seen};
use crate::swarm::{Swarm, Told};
use crate::witness::Witness;

/// How long the last acks and pushes may take.
const DRAIN: Duration = Duration::from_secs(15);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(100);

/// What pairs say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) pairs: u32,
    /// Bytes of text.
    pub(super) size: usize,
    /// Receivers confirm what they got.
    pub(super) confirm: bool,
}

/// All pairs: clients 2n and 2n+1.
pub(super) struct Pairs {
    plan: Plan,
    prefix: String,
    all: Vec<Pair>,
    witness: Option<Witness>,
    /// Pairs with something to do.
    awake: Vec<u32>,
    acked: u64,
    delivered: u64,
    ack: Latencies,
    delivery: Latencies,
    /// From when each was due to when it was sent: this program's own part.
    late: Latencies,
    counts: Counts,
    gone: Vec<String>,
}

/// What was not as it should be, or is worth knowing.
#[derive(Debug, Default)]
struct Counts {
    out_of_order: u64,
    wrong_seq: u64,
    doubled: u64,
    refused: u64,
    hinted: u64,
}

impl Pairs {
    /// `watched` clients, users from `first_user` on, go through the checker.
    pub(super) fn new(plan: Plan, nonce: &str, first_user: u64, watched: u32) -> Result<Self> {
        let prefix = format!("{nonce}-");
        let watched = (watched / 2).min(plan.pairs);
        let mut witness = Witness::of((0..2 * watched).collect(), first_user)?;
        let mut all = Vec::with_capacity(usize::try_from(plan.pairs)?);
        for number in 0..plan.pairs {
            let user = first_user + 2 * u64::from(number);
            let conversation = format!("p2p:{user}:{}", user + 1);
            if number < watched {
                let user = i64::try_from(user)?;
                witness.enter(&conversation, vec![user, user + 1]);
            }
            let template = Template::text(&conversation, &prefix, &"x".repeat(plan.size))?;
            all.push(Pair::new(conversation, template));
        }
        Ok(Self {
            plan,
            prefix,
            all,
            witness: Some(witness),
            awake: Vec::new(),
            acked: 0,
            delivered: 0,
            ack: Latencies::default(),
            delivery: Latencies::default(),
            late: Latencies::default(),
            counts: Counts::default(),
            gone: Vec::new(),
        })
    }

    /// All are served.
    pub(super) fn connected(&mut self) {
        let now = Instant::now();
        if let Some(witness) = &mut self.witness {
            for index in 0..2 * self.plan.pairs {
                if witness.watches(index) {
                    witness.connected(index);
                    witness.told(index, now, &Told::Said(Seen::Ready));
                }
            }
        }
    }

    /// Figures count from here.
    pub(super) fn reset(&mut self) {
        (self.acked, self.delivered) = (0, 0);
        (self.ack, self.delivery, self.late) = Default::default();
    }

    pub(super) const fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Sends until `end`: `rate` messages per second in all, or as many as
    /// `window` per pair allows.
    pub(super) fn talk(
        &mut self,
        progress: &mut Progress,
        swarm: &mut Swarm,
        end: Instant,
        rate: Option<f64>,
        window: u32,
    ) -> Result<()> {
        let every = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let (mut due, mut turn) = (Instant::now(), 0);
        self.awake = if every.is_none() { (0..self.plan.pairs).collect() } else { Vec::new() };
        while Instant::now() < end && swarm.open() > 0 {
            let now = Instant::now();
            while let Some(every) = every.filter(|_| due <= now) {
                self.send(swarm, turn, due, 1)?;
                self.late.record(due.elapsed());
                turn = (turn + 1) % self.plan.pairs;
                due += every;
            }
            for number in std::mem::take(&mut self.awake) {
                let unanswered = self.pair(number).map_or(window, |pair| pair.unanswered);
                if every.is_none() {
                    self.send(swarm, number, now, window.saturating_sub(unanswered))?;
                }
                self.confirm(swarm, number)?;
            }
            swarm.keep_alive()?;
            let until = if every.is_some() { due } else { now + LOOK };
            self.turn(progress, swarm, until.min(end))?;
        }
        Ok(())
    }

    /// Waits until every message has come to its end.
    pub(super) fn settle(&mut self, progress: &mut Progress, swarm: &mut Swarm) -> Result<()> {
        let kept = (self.acked, self.delivered, self.ack.clone(), self.delivery.clone());
        let end = Instant::now() + DRAIN;
        while !self.all.iter().all(|pair| pair.fates.is_empty()) && Instant::now() < end && swarm.open() > 0 {
            self.turn(progress, swarm, Instant::now() + LOOK)?;
        }
        (self.acked, self.delivered, self.ack, self.delivery) = kept;
        Ok(())
    }

    fn turn(&mut self, progress: &mut Progress, swarm: &mut Swarm, until: Instant) -> Result<()> {
        swarm.turn(until, |index, at, told| {
            if let Some(witness) = &mut self.witness {
                witness.told(index, at, &told);
            }
            match told {
                Told::Said(Seen::Ack(ack)) => self.answered(index, at, &ack),
                Told::Said(Seen::Push(push, _)) => {
                    if let Some(latency) = self.arrived(index, at, &push) {
                        progress.record(latency);
                    }
                }
                Told::Said(Seen::Hint { .. }) => self.counts.hinted += 1,
                Told::Gone(why) => self.gone.push(format!("{why:#}")),
                Told::Said(_) => {}
            }
        })?;
        progress.tick(Instant::now());
        Ok(())
    }

    fn send(&mut self, swarm: &mut Swarm, number: u32, due: Instant, count: u32) -> Result<()> {
        let watched = self.witness.as_ref().is_some_and(|witness| witness.watches(2 * number));
        let Some(pair) = self.all.get_mut(usize::try_from(number)?) else { return Ok(()) };
        let mut out = Vec::new();
        for _ in 0..count {
            let message = pair.say(due, &mut out)?;
            if watched && let Some(witness) = &mut self.witness {
                let id = format!("{}{message:010}", self.prefix);
                witness.sent(2 * number, &pair.conversation, &id, &"x".repeat(self.plan.size));
            }
        }
        if out.is_empty() { Ok(()) } else { swarm.send(2 * number, &out) }
    }

    fn confirm(&mut self, swarm: &mut Swarm, number: u32) -> Result<()> {
        let Some(pair) = self.pair(number) else { return Ok(()) };
        let seq = std::mem::take(&mut pair.confirm);
        if seq == 0 {
            return Ok(());
        }
        let conversation_id = pair.conversation.clone();
        let status = AckStatus::Delivered.into();
        let ack = WireAck { conversation_id, seq, status, ..WireAck::default() };
        swarm.send(2 * number + 1, &envelope(Payload::Ack(ack)))
    }

    fn pair(&mut self, number: u32) -> Option<&mut Pair> {
        self.all.get_mut(usize::try_from(number).ok()?)
    }

    fn answered(&mut self, index: u32, at: Instant, ack: &Ack<'_>) {
        let Some(message) = self.number(ack.client_msg_id) else { return };
        let number = index / 2;
        let Some(pair) = self.pair(number) else { return };
        pair.unanswered = pair.unanswered.saturating_sub(1);
        if let Some(fate) = pair.fate(message) {
            if ack.status == Ack::STORED {
                fate.stored = Some(ack.seq);
                let latency = at.saturating_duration_since(fate.due);
                self.acked += 1;
                self.ack.record(latency);
            } else {
                fate.is_refused = true;
                self.counts.refused += 1;
            }
        }
        self.close(number);
        self.wake(number);
    }

    fn arrived(&mut self, index: u32, at: Instant, push: &Push<'_>) -> Option<Duration> {
        // Of an earlier run with the same users.
        let message = self.number(push.client_msg_id)?;
        let (number, confirm) = (index / 2, self.plan.confirm);
        let pair = self.pair(number)?;
        if confirm {
            pair.confirm = pair.confirm.max(push.seq);
        }
        let in_order = pair.last.is_none_or(|(last, seq)| message > last && push.seq > seq);
        let fresh = pair.fate(message).filter(|fate| fate.delivered.is_none());
        let latency = fresh.map(|fate| {
            fate.delivered = Some(push.seq);
            at.saturating_duration_since(fate.due)
        });
        match latency {
            None => self.counts.doubled += 1,
            Some(_) if !in_order => self.counts.out_of_order += 1,
            Some(latency) => {
                pair.last = Some((message, push.seq));
                self.delivered += 1;
                self.delivery.record(latency);
            }
        }
        self.close(number);
        if confirm {
            self.wake(number);
        }
        latency
    }

    fn wake(&mut self, number: u32) {
        if self.awake.last() != Some(&number) {
            self.awake.push(number);
        }
    }

    fn close(&mut self, number: u32) {
        let wrong = self.pair(number).map_or(0, Pair::close);
        self.counts.wrong_seq += wrong;
    }

    fn number(&self, id: &[u8]) -> Option<u32> {
        std::str::from_utf8(id.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }

    /// Adds the histograms, and where messages were due at a time, how late
    /// they were sent; returns the 99th percentile of the delivery, µs.
    pub(super) fn add_latencies(&mut self, round: &mut Round, [stored, push]: [&str; 2]) -> u64 {
        let p99 = self.delivery.at(0.99);
        if self.late.count() > 0 {
            round.add("sentLateP99Us", float(self.late.at(0.99)));
        }
        round.add_latencies(stored, std::mem::take(&mut self.ack));
        round.add_latencies(push, std::mem::take(&mut self.delivery));
        p99
    }

    /// After [`Pairs::settle`]: what was lost; what is left to the checker.
    pub(super) fn judge(&mut self, round: &mut Round) -> Option<Witness> {
        let (mut missing, mut unanswered) = (0_u64, 0_u64);
        for fate in self.all.iter().flat_map(|pair| &pair.fates) {
            missing += u64::from(fate.stored.is_some() && fate.delivered.is_none());
            unanswered += u64::from(fate.stored.is_none() && !fate.is_refused);
        }
        super::lost(round, "while they talked", &self.gone);
        let Counts { out_of_order, wrong_seq, doubled, refused, hinted } = self.counts;
        let counts = [
            ("stored messages were not delivered", missing),
            ("sends were not answered", unanswered),
            ("messages came out of order", out_of_order),
            ("messages came with another seq than acknowledged", wrong_seq),
        ];
        for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            round.problem(format!("{count} {what}"));
        }
        for (name, count) in [("doubled", doubled), ("refused", refused), ("hints", hinted)] {
            round.add(name, float(count));
        }
        self.witness.take()
    }
}
