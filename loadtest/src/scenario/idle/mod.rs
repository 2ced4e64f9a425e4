//! Connections that do nothing but live: what they take while they are there,
//! and what is left of it afterwards.

mod contacts;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tidegate::internal::Payload;
use tidegate::proto::Custom;

use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame;
use crate::ground::OwnRedis;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::Seen;
use crate::swarm::{Swarm, Told};

/// How long the server may take to notice that all have left.
const SETTLE: Duration = Duration::from_secs(30);
/// Between a burst and the reading of memory, seconds.
const CALM: f64 = 30.0;
/// A message of a burst, bytes.
const BURST: usize = 64 * 1024;
/// Connections that send their part of it at once.
const SLICE: usize = 200;

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
    /// Conversations of each user, made before; the run's own gateways are
    /// started anew behind that.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    conversations: u32,
    /// 64 KiB to and from every connection, and memory 30 s later.
    #[arg(long)]
    burst: bool,
    /// Seconds after all have left, until memory is read.
    #[arg(long, default_value_t = 2.0)]
    after: f64,
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
            ("conversations", self.conversations.to_string()),
            ("burst", self.burst.to_string()),
            ("afterS", self.after.to_string()),
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
        if self.conversations > 0 && !stage.side.is_floor() {
            contacts::make(stage, self.connections, self.conversations)?;
            if !stage.side.restart()? {
                stage.progress.note("memory counts what making the conversations left behind");
            }
        }
        let mut swarm = Swarm::new()?;
        stage.begin("heartbeats");
        let empty = (stage.side.processes.sample(), stage.side.processes.proportional());
        let opened = stage.open(&mut swarm, self.connections)?;
        round.add("openedPerSecond", float(opened.served) / opened.took.as_secs_f64());
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        let full = (stage.side.processes.sample(), stage.side.processes.proportional());
        let each = |bytes: u64| float(bytes) / f64::from(self.connections);
        round.add("bytesPerConnection", each(full.0.memory.saturating_sub(empty.0.memory)));
        round.add("pssBytesPerConnection", each(full.1.saturating_sub(empty.1)));
        stage.begin("heartbeats");
        let reads = stage.side.redis.as_ref().map(OwnRedis::reads).transpose()?;
        let asked = Instant::now();
        self.hold(stage, &mut swarm, &mut round, self.hold)?;
        let held = stage.side.processes.sample();
        let cost = held.since(&full.0);
        round.add("bytesPerConnectionHeld", each(held.memory.saturating_sub(empty.0.memory)));
        round.add("idleCores", cost.cores());
        round.add("idleCpuUsPerConnectionAndSecond", cost.cores() * 1e6 / f64::from(self.connections));
        round.add("idleSwitchesPerSecond", float(cost.switches) / self.hold.max(0.001));
        if let (Some(redis), Some(before)) = (&stage.side.redis, reads) {
            let reads = redis.reads()?.saturating_sub(before);
            round.add("redisReadsPerSecond", float(reads) / asked.elapsed().as_secs_f64());
        }
        if self.burst && !stage.side.is_floor() {
            let most = self.burst(stage, &mut swarm, &mut round)?;
            self.hold(stage, &mut swarm, &mut round, CALM)?;
            let calm = stage.side.processes.memory();
            round.add("bytesPerConnectionInBurst", each(most.saturating_sub(empty.0.memory)));
            round.add("bytesPerConnectionAfterBurst", each(calm.saturating_sub(empty.0.memory)));
        }
        swarm.clear();
        if let Ok(admin) = stage.side.admin() {
            let left = admin.settle(0, SETTLE)?;
            if left > 0 {
                round.problem(format!("{left} connections never left"));
            }
        }
        stage.pass(&mut swarm, Duration::from_secs_f64(self.after))?;
        let after = stage.side.processes.memory();
        round.add("bytesKeptPerConnection", each(after.saturating_sub(empty.0.memory)));
        Ok(round)
    }
}

impl Idle {
    /// Heartbeats, spread over all connections.
    fn hold(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, round: &mut Round, seconds: f64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
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

    /// 64 KiB to and from every connection, nothing of it stored: a payload
    /// for everybody, and one of each client for nobody, which is refused.
    /// Returns the most memory the server took, bytes.
    fn burst(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, round: &mut Round) -> Result<u64> {
        let mut most = 0;
        let body = json!({"target": {"all": true}, "topic": "burst", "payload": "x".repeat(BURST)});
        let admin = stage.side.admin()?.clone();
        let asked = std::thread::spawn(move || admin.request("POST", "/v1/push", &body.to_string()));
        let (mut arrived, mut answered, mut gone) = (0_u32, 0_u32, Vec::new());
        let (end, mut next) = (Instant::now() + SETTLE, 0);
        while arrived < self.connections || answered < self.connections {
            if Instant::now() > end {
                round.problem(format!(
                    "the burst reached {arrived} connections and was answered on {answered} of {}",
                    self.connections
                ));
                break;
            }
            for index in (next..self.connections).take(SLICE) {
                let custom = Custom {
                    topic: "burst".into(),
                    payload: vec![b'x'; BURST].into(),
                    request_id: "burst".into(),
                    ..Custom::default()
                };
                swarm.send(index, &frame::envelope(Payload::Custom(custom)))?;
                next = index + 1;
            }
            swarm.turn(Instant::now() + Duration::from_millis(20), |_, _, told| match told {
                Told::Said(Seen::Custom { topic: b"burst", .. }) => arrived += 1,
                Told::Said(Seen::Error { .. }) => answered += 1,
                Told::Gone(why) => gone.push(format!("{why:#}")),
                Told::Said(_) => {}
            })?;
            most = most.max(stage.side.processes.memory());
            stage.progress.tick(Instant::now());
        }
        lost(round, "in the burst", &gone);
        match asked.join() {
            Ok(Err(error)) => round.problem(format!("{error:#}")),
            Ok(Ok(_)) => {}
            Err(_) => round.problem("the burst was not asked for"),
        }
        Ok(most)
    }
}
