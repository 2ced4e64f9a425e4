//! A group as its members see it: who has which message, and in which order
//! it came.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::pulls::Pulls;
use crate::floor::RAW;
use crate::latency::Latencies;
use crate::scan::{Ack, Push, Seen};
use crate::swarm::{Swarm, Told};
use crate::witness::Witness;

/// One message under way.
pub(super) struct UnderWay {
    pub(super) due: Instant,
    /// Members that do not have it.
    pub(super) missing: u32,
    pub(super) is_stored: bool,
}

/// The group as its members see it.
pub(super) struct Crowd {
    pub(super) group: String,
    pub(super) prefix: String,
    pub(super) under_way: HashMap<u32, UnderWay>,
    /// Number and seq of the newest message of each client.
    pub(super) last: Vec<(u32, i64)>,
    pub(super) pulls: Pulls,
    pub(super) copies: u64,
    pub(super) stored: Latencies,
    pub(super) copy: Latencies,
    pub(super) whole: Latencies,
    pub(super) disorder: u64,
    pub(super) problems: Vec<String>,
    /// What a raw loop cost, nanoseconds and sends.
    pub(super) raw: Option<(u64, u64)>,
    pub(super) raw_copies: u64,
    pub(super) witness: Option<Witness>,
}

impl Crowd {
    /// Nobody has anything.
    pub(super) fn new(group: &str, nonce: &str, members: u32, witness: Option<Witness>) -> Result<Self> {
        Ok(Self {
            group: group.to_owned(),
            prefix: format!("{nonce}-"),
            under_way: HashMap::new(),
            last: vec![(0, 0); usize::try_from(members)?],
            pulls: Pulls::default(),
            copies: 0,
            stored: Latencies::default(),
            copy: Latencies::default(),
            whole: Latencies::default(),
            disorder: 0,
            problems: Vec::new(),
            raw: None,
            raw_copies: 0,
            witness,
        })
    }

    /// Figures count from here.
    pub(super) fn reset(&mut self) {
        self.copies = 0;
        (self.stored, self.copy, self.whole) = Default::default();
    }

    /// Takes what a member is told; how long it took, if it is a new message.
    pub(super) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) -> Option<Duration> {
        if let Some(witness) = &mut self.witness {
            witness.told(index, at, told);
        }
        self.pulls.told(index, at, told);
        match told {
            Told::Said(Seen::Push(push, _)) => return self.push(index, at, push),
            Told::Said(Seen::Ack(ack)) => self.ack(at, ack),
            Told::Said(Seen::Custom { topic, payload }) if *topic == RAW.as_bytes() => {
                let text = String::from_utf8_lossy(payload);
                self.raw = text
                    .split_once(' ')
                    .and_then(|(ns, sends)| Some((ns.parse().ok()?, sends.parse().ok()?)));
            }
            Told::Said(Seen::Error { message, .. }) => {
                self.problems.push(format!("refused: {}", String::from_utf8_lossy(message)));
            }
            Told::Said(Seen::Kick { reason }) => self.problems.push(format!("kicked: reason {reason}")),
            Told::Gone(why) => self.problems.push(format!("a connection is gone: {why:#}")),
            Told::Said(_) => {}
        }
        None
    }

    fn push(&mut self, index: u32, at: Instant, push: &Push<'_>) -> Option<Duration> {
        let Some(number) = self.number(push.client_msg_id) else {
            self.raw_copies += 1;
            return None;
        };
        let last = self.last.get_mut(usize::try_from(index).ok()?)?;
        let follows = number == last.0 + 1 && (last.1 == 0 || push.seq == last.1 + 1);
        *last = (number, push.seq);
        if !follows {
            self.disorder += 1;
        }
        let Some(one) = self.under_way.get_mut(&number) else {
            self.disorder += 1;
            return None;
        };
        let latency = at.saturating_duration_since(one.due);
        self.copies += 1;
        self.copy.record(latency);
        one.missing = one.missing.saturating_sub(1);
        if one.missing == 0 {
            self.whole.record(latency);
            self.end(number);
        }
        Some(latency)
    }

    fn ack(&mut self, at: Instant, ack: &Ack<'_>) {
        let Some(number) = self.number(ack.client_msg_id) else { return };
        let Some(one) = self.under_way.get_mut(&number) else { return };
        if ack.status == Ack::STORED {
            one.is_stored = true;
            self.stored.record(at.saturating_duration_since(one.due));
            self.end(number);
        } else {
            self.problems.push(format!("message {number} was refused with error {}", ack.error));
            self.under_way.remove(&number);
        }
    }

    /// It is over when it is stored and everybody has it.
    fn end(&mut self, number: u32) {
        if self.under_way.get(&number).is_some_and(|one| one.is_stored && one.missing == 0) {
            self.under_way.remove(&number);
        }
    }

    /// Asks for what was announced and is due.
    pub(super) fn pull(&mut self, swarm: &mut Swarm) -> Result<()> {
        let last = |client: usize| self.last.get(client).map(|(_, seq)| *seq);
        self.pulls.send(swarm, &self.group, last)
    }

    fn number(&self, id: &[u8]) -> Option<u32> {
        std::str::from_utf8(id.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }
}
