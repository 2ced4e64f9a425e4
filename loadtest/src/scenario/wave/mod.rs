//! All receivers leave at once, miss something, and come back at once: how
//! fast they are served again, what it costs, and whether each gets exactly
//! what it missed.

mod waves;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use self::waves::Waves;
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::swarm::Swarm;

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
        let mut waves = Waves::new(stage, self.receivers)?;
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
