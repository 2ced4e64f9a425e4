//! All receivers leave at once, miss something, and come back at once: how
//! fast they are served again, what it costs, and whether each gets exactly
//! what it missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use tidegate::internal::Payload;
use tidegate::proto::{Identify, Position};

use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame::{Template, envelope};
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::{Ack, Push, Seen};
use crate::swarm::{Opening, Swarm, Told};
use crate::witness::Witness;

/// How long a wave may take until everybody has everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// Until what was put off is sent again.
const RETRY: Duration = Duration::from_millis(500);
const TEXT: &str = "while you were away, this was said";

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct ReconnectWave {
    /// Receivers, each with a sender of its own that stays.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    receivers: u32,
    /// Messages each misses per wave.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=400))]
    missed: u32,
    /// Waves.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    waves: u32,
}

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

struct Waves {
    prefix: String,
    all: Vec<Receiver>,
    witness: Witness,
    /// Those that have everything in this wave.
    caught_up: u32,
    caught: Latencies,
    begin: Instant,
    holes: u64,
    refused: u64,
    retried: u64,
    /// When to repeat what was put off.
    retry_at: Option<Instant>,
    gone: Vec<String>,
}

impl Scenario for ReconnectWave {
    fn name(&self) -> &'static str {
        "reconnect-wave"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("receivers", self.receivers.to_string()),
            ("missed", self.missed.to_string()),
            ("waves", self.waves.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        if with == Comparison::OneWorker { Compared::InTurn } else { Compared::Never }
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let mut swarm = Swarm::new()?;
        stage.open(&mut swarm, 2 * self.receivers)?;
        let mut waves = self.waves(stage)?;
        waves.connected(0..2 * self.receivers);
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        stage.begin("replayed");
        // One message each, so that there is a position to resume from.
        waves.say(&mut swarm, 1)?;
        waves.wait(stage, &mut swarm, &mut round, |waves| waves.all_stored() && waves.all_have_all())?;
        let (mut opened, mut took, mut handshakes) = (0, Duration::ZERO, Latencies::default());
        let (mut cpu, mut switches) = (Duration::ZERO, 0);
        for _ in 0..self.waves {
            for index in (0..self.receivers).map(|number| 2 * number + 1) {
                swarm.close(index);
                waves.witness.left(index);
            }
            waves.say(&mut swarm, self.missed)?;
            waves.wait(stage, &mut swarm, &mut round, Waves::all_stored)?;
            let before = stage.side.processes.sample();
            let wave = waves.come_back(stage, &mut swarm, &mut round)?;
            let cost = stage.side.processes.sample().since(&before);
            (cpu, switches) = (cpu + cost.cpu, switches + cost.switches);
            (opened, took) = (opened + wave.served, took + waves.begin.elapsed());
            handshakes.add(&wave.latencies)?;
        }
        round.add("reconnectsPerSecond", float(opened) / took.as_secs_f64().max(1e-9));
        round.add("cpuUsPerReconnect", cpu.as_secs_f64() * 1e6 / float(opened.max(1)));
        round.add("switchesPerReconnect", float(switches) / float(opened.max(1)));
        round.add("retried", float(waves.retried));
        round.add_latencies("reconnect", handshakes);
        round.add_latencies("caughtUp", waves.caught);
        for (what, count) in
            [("replayed messages came behind a hole", waves.holes), ("sends were refused", waves.refused)]
        {
            if count > 0 {
                round.problem(format!("{count} {what}"));
            }
        }
        lost(&mut round, "in a wave", &waves.gone);
        stage.judge(waves.witness, &mut round);
        Ok(round)
    }
}

impl ReconnectWave {
    fn waves(&self, stage: &Stage<'_>) -> Result<Waves> {
        let prefix = format!("{}-", stage.nonce);
        let watched = (stage.watched / 2).min(self.receivers);
        let mut witness = Witness::of((0..2 * watched).collect(), stage.first_user)?;
        let mut all = Vec::with_capacity(usize::try_from(self.receivers)?);
        for number in 0..self.receivers {
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
        Ok(Waves {
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
}

impl Waves {
    fn connected(&mut self, clients: std::ops::Range<u32>) {
        let now = Instant::now();
        for index in clients {
            if self.witness.watches(index) {
                self.witness.connected(index);
                self.witness.told(index, now, &Told::Said(Seen::Ready));
            }
        }
    }

    /// Every sender sends `count` messages.
    fn say(&mut self, swarm: &mut Swarm, count: u32) -> Result<()> {
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

    fn all_stored(&self) -> bool {
        let stored: u64 = self.all.iter().map(|receiver| u64::from(receiver.stored)).sum();
        let sent: u64 = self.all.iter().map(|receiver| u64::from(receiver.sent)).sum();
        stored + self.refused >= sent
    }

    fn all_have_all(&self) -> bool {
        self.all.iter().all(|receiver| receiver.seq >= i64::from(receiver.stored))
    }

    fn wait(
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
    fn come_back(
        &mut self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        round: &mut Round,
    ) -> Result<crate::swarm::Opened> {
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
