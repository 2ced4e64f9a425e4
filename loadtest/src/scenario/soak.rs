//! For long: idle connections, some of which leave and come back all the
//! time, and pairs that talk at a rate. What must not grow is watched.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::pairs::{Pairs, Plan};
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame;
use crate::numbers::float;
use crate::round::Round;
use crate::swarm::{Opening, Swarm, Told};

/// How often connections leave and come back.
const STRETCH: Duration = Duration::from_secs(1);
/// Users of the idle connections begin this far behind the pairs'.
const APART: u64 = 500_000;
/// Figures of growth begin after this share of the time.
const WARM_UP: f64 = 0.25;
/// Growth of a shorter run says nothing, seconds.
const LONG: f64 = 60.0;
/// Heartbeats of an idle connection.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Idle connections.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Of those, how many leave and come back each second.
    #[arg(long, default_value_t = 50)]
    churn: u32,
    /// Pairs that talk.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pairs: u32,
    /// Messages per second, all pairs together.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seconds of it.
    #[arg(long, default_value_t = 600.0)]
    duration: f64,
}

/// The idle ones.
struct Crowd {
    swarm: Swarm,
    first_user: u64,
    /// Who leaves next, and who heartbeats next.
    leaves: u32,
    beats: u32,
    reconnects: u64,
    gone: Vec<String>,
}

impl Scenario for Soak {
    fn name(&self) -> &'static str {
        "soak"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connections", self.connections.to_string()),
            ("churn", format!("{}/s", self.churn)),
            ("pairs", self.pairs.to_string()),
            ("rate", format!("{}/s", self.rate)),
            ("durationS", self.duration.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        if with == Comparison::OneWorker { Compared::InTurn } else { Compared::Never }
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let plan = Plan { pairs: self.pairs, size: 64, confirm: true };
        let mut pairs = Pairs::new(plan, &stage.nonce, stage.first_user, stage.watched)?;
        let mut swarm = Swarm::new()?;
        stage.open(&mut swarm, 2 * self.pairs)?;
        pairs.connected();
        let mut crowd = Crowd {
            swarm: Swarm::new()?,
            first_user: stage.first_user + APART,
            leaves: 0,
            beats: 0,
            reconnects: 0,
            gone: Vec::new(),
        };
        crowd.open(stage, (0..self.connections).collect())?;
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        stage.begin("messages");
        let (before, begin) = (stage.side.processes.sample(), Instant::now());
        let end = begin + Duration::from_secs_f64(self.duration);
        let mut warm = None;
        while Instant::now() < end && swarm.open() > 0 {
            let until = end.min(Instant::now() + STRETCH);
            pairs.talk(stage.progress, &mut swarm, until, Some(self.rate), 1)?;
            self.churn(stage, &mut crowd)?;
            if warm.is_none() && begin.elapsed().as_secs_f64() > self.duration * WARM_UP {
                warm = Some((Instant::now(), stage.side.processes.memory()));
            }
        }
        let after = stage.side.processes.sample();
        pairs.settle(stage.progress, &mut swarm)?;
        round.add("storedPerSecond", float(pairs.acked()) / begin.elapsed().as_secs_f64());
        round.add("reconnects", float(crowd.reconnects));
        round.add_cost("Message", &after.since(&before), pairs.acked());
        round.add("memoryMiB", float(after.memory) / 1_048_576.0);
        if let Some((at, memory)) = warm.filter(|_| self.duration >= LONG) {
            let hours = at.elapsed().as_secs_f64() / 3600.0;
            round.add("memoryGrowthMiBPerHour", (float(after.memory) - float(memory)) / 1_048_576.0 / hours);
        }
        pairs.add_latencies(&mut round, ["stored", "push"]);
        lost(&mut round, "while idle", &crowd.gone);
        if let Some(witness) = pairs.judge(&mut round) {
            stage.judge(witness, &mut round);
        }
        swarm.clear();
        crowd.swarm.clear();
        let left = stage.side.admin()?.settle(0, 10 * REST)?;
        if left > 0 {
            round.problem(format!("{left} connections never left"));
        }
        Ok(round)
    }
}

impl Soak {
    /// Some leave and come back, some heartbeat, all are looked after.
    fn churn(&self, stage: &Stage<'_>, crowd: &mut Crowd) -> Result<()> {
        let Crowd { swarm, leaves, beats, gone, .. } = crowd;
        let beating = f64::from(self.connections) / HEARTBEAT.as_secs_f64();
        for _ in 0..format!("{:.0}", beating.ceil()).parse().unwrap_or(1_u32) {
            swarm.send(*beats, &frame::HEARTBEAT)?;
            *beats = (*beats + 1) % self.connections;
        }
        swarm.turn(Instant::now(), |_, _, told| {
            if let Told::Gone(why) = told {
                gone.push(format!("{why:#}"));
            }
        })?;
        let mut leaving = Vec::new();
        for _ in 0..self.churn.min(self.connections) {
            swarm.close(*leaves);
            leaving.push(*leaves);
            *leaves = (*leaves + 1) % self.connections;
        }
        crowd.reconnects += u64::from(self.churn.min(self.connections));
        crowd.open(stage, leaving)
    }
}

impl Crowd {
    fn open(&mut self, stage: &Stage<'_>, clients: Vec<u32>) -> Result<()> {
        let (targets, first_user) = (&stage.side.targets, self.first_user);
        let request =
            |index: u32| Ok(targets.request(index, first_user + u64::from(index), None, false)?.into_bytes());
        Opening::new(clients, stage.opening, None).run(&mut self.swarm, targets, request)?.complete()?;
        Ok(())
    }
}
