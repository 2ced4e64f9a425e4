//! Connections that do nothing but live: what they take while they are there,
//! and what is left of it afterwards.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame;
use crate::numbers::float;
use crate::round::Round;
use crate::swarm::{Swarm, Told};

/// How long the server may take to notice that all have left.
const SETTLE: Duration = Duration::from_secs(30);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Connections.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Seconds they are held.
    #[arg(long, default_value_t = 5.0)]
    hold: f64,
    /// Seconds between two heartbeats of a connection; all are spread evenly.
    #[arg(long, default_value_t = 30.0)]
    heartbeat: f64,
}

impl Scenario for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connections", self.connections.to_string()),
            ("holdS", self.hold.to_string()),
            ("heartbeatS", self.heartbeat.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        Compared::unless_bare(with)
    }

    fn wants_fresh(&self) -> bool {
        true
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let mut swarm = Swarm::new()?;
        stage.begin("heartbeats");
        let empty = (stage.side.processes.sample(), stage.side.processes.proportional());
        let opened = stage.open(&mut swarm, self.connections)?;
        round.add("openedPerSecond", float(opened.served) / opened.took.as_secs_f64());
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        let full = (stage.side.processes.sample(), stage.side.processes.proportional());
        let per_connection = |bytes: u64| float(bytes) / f64::from(self.connections);
        round.add("bytesPerConnection", per_connection(full.0.memory.saturating_sub(empty.0.memory)));
        round.add("pssBytesPerConnection", per_connection(full.1.saturating_sub(empty.1)));
        stage.begin("heartbeats");
        self.hold(stage, &mut swarm, &mut round)?;
        let held = stage.side.processes.sample();
        let cost = held.since(&full.0);
        round.add("idleCores", cost.cores());
        round.add("idleCpuUsPerConnectionAndSecond", cost.cores() * 1e6 / f64::from(self.connections));
        round.add("idleSwitchesPerSecond", float(cost.switches) / self.hold.max(0.001));
        swarm.clear();
        if let Ok(admin) = stage.side.admin() {
            let left = admin.settle(0, SETTLE)?;
            if left > 0 {
                round.problem(format!("{left} connections never left"));
            }
        }
        stage.pass(&mut swarm, REST)?;
        let after = stage.side.processes.sample();
        round.add("bytesKeptPerConnection", per_connection(after.memory.saturating_sub(empty.0.memory)));
        Ok(round)
    }
}

impl Idle {
    /// Heartbeats, spread over all connections.
    fn hold(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, round: &mut Round) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(self.hold);
        let every = Duration::from_secs_f64(self.heartbeat / f64::from(self.connections));
        let (mut due, mut turn, mut gone) = (Instant::now(), 0, Vec::new());
        while Instant::now() < end {
            let now = Instant::now();
            while due <= now {
                swarm.send(turn, &frame::HEARTBEAT)?;
                stage.progress.count(1);
                turn = (turn + 1) % self.connections;
                due += every;
            }
            // Not one wake-up per heartbeat: those of 10 ms go together.
            swarm.turn(end.min(due + Duration::from_millis(10)), |_, _, told| {
                if let Told::Gone(why) = told {
                    gone.push(format!("{why:#}"));
                }
            })?;
            stage.progress.tick(Instant::now());
        }
        lost(round, "while idle", &gone);
        Ok(())
    }
}
