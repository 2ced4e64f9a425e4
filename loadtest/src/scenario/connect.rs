//! Handshakes: what a connection costs until it is served.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::numbers::float;
use crate::process::Processes;
use crate::round::Round;
use crate::swarm::{Opening, Swarm};

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Begun per second; latencies count from when each was due. Default: as
    /// fast as they come.
    #[arg(long)]
    rate: Option<f64>,
    /// Clients show no token, though the run starts the gateways.
    #[arg(long)]
    plain: bool,
}

impl Scenario for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let rate = self.rate.map_or("as fast as they come".to_owned(), |rate| format!("{rate}/s"));
        vec![("connections", self.connections.to_string()), ("rate", rate)]
    }

    fn compared(&self, with: Comparison) -> Compared {
        Compared::unless_bare(with)
    }

    fn wants_tokens(&self) -> bool {
        !self.plain
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let mut swarm = Swarm::new()?;
        let redis = stage.side.redis.as_ref().map(|redis| Processes::new(vec![redis.pid()]));
        let redis_before = redis.as_ref().map(Processes::cpu);
        stage.begin("handshakes");
        // Tokens are signed before the clock runs.
        let mut requests = stage.requests();
        let requests = (0..self.connections).map(&mut requests).collect::<Result<Vec<_>>>()?;
        let mut request = |index: u32| {
            Ok(usize::try_from(index).ok().and_then(|at| requests.get(at).cloned()).unwrap_or_default())
        };
        let mut opening = Opening::new((0..self.connections).collect(), stage.opening, self.rate);
        let before = stage.side.processes.sample();
        while !opening.is_over() {
            let until = opening.step(&mut swarm, &stage.side.targets, &mut request)?;
            swarm.turn(until, |index, at, told| {
                if let Some(latency) = opening.told(index, at, &told) {
                    stage.progress.record(latency);
                }
            })?;
            stage.progress.tick(Instant::now());
        }
        let opened = opening.finish();
        let cost = stage.side.processes.sample().since(&before);
        round.add("connectionsPerSecond", float(opened.served) / opened.took.as_secs_f64());
        round.add_cost("Connection", &cost, opened.served);
        if let Some((redis, before)) = redis.as_ref().zip(redis_before) {
            let spent = redis.cpu().saturating_sub(before);
            round.add("redisCpuUsPerConnection", spent.as_secs_f64() * 1e6 / float(opened.served.max(1)));
        }
        round.add_latencies("connect", opened.latencies);
        if let Some(error) = opened.failure {
            round.problem(format!("{} connections did not open: {error:#}", opened.failed));
        }
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        swarm.clear();
        if let Ok(admin) = stage.side.admin() {
            let left = admin.settle(0, 10 * REST)?;
            if left > 0 {
                round.problem(format!("{left} connections never left"));
            }
        }
        Ok(round)
    }
}
