//! Members of a busy group that stop reading for a while, as phones do in a
//! tunnel: what they cost, whether the others notice, and whether they get
//! everything in the end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::followers::Followers;
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame::Template;
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::{Ack, Seen};
use crate::swarm::{Swarm, Told};
use crate::witness::Witness;

/// How long all may take to have everything once they read again.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// Receive buffer of a slow reader, bytes: what the kernel takes for it.
const RECEIVE: usize = 4096;

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct SlowReaders {
    /// Members, all online; the first one sends.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Of those, members that stop reading: the last ones.
    #[arg(long, default_value_t = 50)]
    slow: u32,
    /// Messages per second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Seconds the slow ones do not read; after 60 they are let go by the
    /// gateway.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Characters of text in a message.
    #[arg(long, default_value_t = 1_000)]
    size: usize,
}

/// What is under way.
struct Traffic {
    template: Template,
    prefix: String,
    followers: Followers,
    witness: Witness,
    /// When each message was due, by its seq: known with its ack.
    due: HashMap<u32, Instant>,
    sent: u32,
    stored: u32,
    refused: u64,
    /// Of members that read.
    copy: Latencies,
    ack: Latencies,
}

impl Scenario for SlowReaders {
    fn name(&self) -> &'static str {
        "slow-readers"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("members", self.members.to_string()),
            ("slow", self.slow.to_string()),
            ("rate", format!("{}/s", self.rate)),
            ("durationS", self.duration.to_string()),
            ("textBytes", self.size.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        if with == Comparison::OneWorker { Compared::InTurn } else { Compared::Never }
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let group = format!("g:load-{}", stage.nonce);
        let members: Vec<u64> = (0..self.members).map(|index| stage.user(index)).collect();
        let admin = stage.side.admin()?.clone();
        admin.create(&group, &members)?;
        let mut swarm = Swarm::new()?;
        let mut traffic = self.traffic(stage, &group)?;
        self.open(stage, &mut swarm)?;
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        stage.begin("copies");
        let slow = self.members.saturating_sub(self.slow).max(1)..self.members;
        for index in slow.clone() {
            swarm.set_deaf(index, true)?;
        }
        let before = stage.side.processes.sample();
        self.send(stage, &mut swarm, &mut traffic)?;
        let after = stage.side.processes.sample();
        round.add_cost("Copy", &after.since(&before), traffic.followers.copies);
        let grown = float(after.memory) - float(before.memory);
        round.add("bytesPerSlowReader", grown / f64::from(self.slow.max(1)));
        let begin = Instant::now();
        for index in slow {
            swarm.set_deaf(index, false)?;
        }
        self.catch_up(stage, &mut swarm, &mut traffic, &mut round)?;
        round.add("catchUpS", begin.elapsed().as_secs_f64());
        round.add("hints", float(traffic.followers.pulls.hints));
        round.add("repeated", float(traffic.followers.repeated));
        round.add("refused", float(traffic.refused));
        if traffic.followers.holes > 0 {
            round.problem(format!("{} copies came behind a hole", traffic.followers.holes));
        }
        lost(&mut round, "while the group was busy", &traffic.followers.gone);
        round.add_latencies("stored", traffic.ack);
        round.add_latencies("copyOfReaders", traffic.copy);
        stage.judge(traffic.witness, &mut round);
        swarm.clear();
        admin.delete(&group)?;
        Ok(round)
    }
}

impl SlowReaders {
    fn traffic(&self, stage: &Stage<'_>, group: &str) -> Result<Traffic> {
        let prefix = format!("{}-", stage.nonce);
        // Half of the watched ones are slow ones, which come last.
        let watched = stage.watched.min(self.members);
        let mut witness = Witness::of(self.watched(watched), stage.first_user)?;
        witness.enter(group, witness.users());
        Ok(Traffic {
            template: Template::text(group, &prefix, &"x".repeat(self.size))?,
            prefix,
            followers: Followers::new(group, self.members)?,
            witness,
            due: HashMap::new(),
            sent: 0,
            stored: 0,
            refused: 0,
            copy: Latencies::default(),
            ack: Latencies::default(),
        })
    }

    /// The sender, readers, and slow ones.
    fn watched(&self, count: u32) -> Vec<u32> {
        let slow = (count / 2).min(self.slow);
        (0..count - slow).chain(self.members - slow..self.members).collect()
    }

    /// Slow ones have small buffers: what is not read stays with the server.
    fn open(&self, stage: &mut Stage<'_>, swarm: &mut Swarm) -> Result<()> {
        let first_slow = self.members.saturating_sub(self.slow).max(1);
        stage.open(swarm, first_slow)?;
        swarm.set_receive_buffer(Some(RECEIVE));
        stage.open_more(swarm, first_slow..self.members)?;
        swarm.set_receive_buffer(None);
        Ok(())
    }

    fn send(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, traffic: &mut Traffic) -> Result<()> {
        let group_begin = Instant::now();
        for index in traffic.witness.clients() {
            traffic.witness.connected(index);
            traffic.witness.told(index, group_begin, &Told::Said(Seen::Ready));
        }
        let every = Duration::from_secs_f64(1.0 / self.rate);
        let (mut due, end) = (Instant::now(), Instant::now() + Duration::from_secs_f64(self.duration));
        let mut out = Vec::new();
        while Instant::now() < end && swarm.open() > 0 {
            while due <= Instant::now() {
                traffic.sent += 1;
                traffic.due.insert(traffic.sent, due);
                traffic.template.write(traffic.sent, &mut out);
                let id = format!("{}{:010}", traffic.prefix, traffic.sent);
                traffic.witness.sent(0, &format!("g:load-{}", stage.nonce), &id, &"x".repeat(self.size));
                due += every;
            }
            swarm.send(0, &out)?;
            out.clear();
            self.turn(stage, swarm, traffic, due.min(end))?;
        }
        Ok(())
    }

    fn turn(
        &self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        traffic: &mut Traffic,
        until: Instant,
    ) -> Result<()> {
        swarm.turn(until, |index, at, told| {
            traffic.witness.told(index, at, &told);
            if let Told::Said(Seen::Ack(ack)) = &told {
                traffic.answered(at, ack);
            }
            if traffic.followers.told(index, at, &told) {
                stage.progress.count(1);
                if let Told::Said(Seen::Push(push, _)) = &told
                    && index < self.members - self.slow
                    && let Some(due) =
                        traffic.number(push.client_msg_id).and_then(|number| traffic.due.get(&number))
                {
                    traffic.copy.record(at.saturating_duration_since(*due));
                }
            }
        })?;
        traffic.followers.pull(swarm)?;
        swarm.keep_alive()?;
        stage.progress.tick(Instant::now());
        Ok(())
    }

    /// Until everybody has everything.
    fn catch_up(
        &self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        traffic: &mut Traffic,
        round: &mut Round,
    ) -> Result<()> {
        let end = Instant::now() + CATCH_UP;
        loop {
            let answered = u64::from(traffic.stored) + traffic.refused >= u64::from(traffic.sent);
            let behind = (1..self.members)
                .filter(|index| !traffic.followers.has(*index, i64::from(traffic.stored)))
                .count();
            if answered && behind == 0 {
                return Ok(());
            }
            if Instant::now() > end || swarm.open() == 0 {
                round.problem(format!(
                    "{behind} members do not have everything, {} sends have no answer",
                    u64::from(traffic.sent) - u64::from(traffic.stored) - traffic.refused
                ));
                return Ok(());
            }
            self.turn(stage, swarm, traffic, Instant::now() + LOOK)?;
        }
    }
}

impl Traffic {
    fn answered(&mut self, at: Instant, ack: &Ack<'_>) {
        let Some(due) = self.number(ack.client_msg_id).and_then(|number| self.due.get(&number)) else {
            return;
        };
        if ack.status == Ack::STORED {
            self.stored += 1;
            self.ack.record(at.saturating_duration_since(*due));
        } else {
            self.refused += 1;
        }
    }

    fn number(&self, id: &[u8]) -> Option<u32> {
        std::str::from_utf8(id.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }
}
