//! The gateway is replaced by another process again and again, while
//! everybody talks: nobody may notice more than a pause.

mod crowd;
mod text;
mod traveller;
mod upgrades;
mod visitors;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use self::crowd::{Crowd, Shares};
use self::upgrades::{Asked, Upgrades};
use self::visitors::Visitors;
use super::{Compared, Comparison, REST, Scenario, Stage};
use crate::numbers::float;
use crate::round::Round;
use crate::swarm::Swarm;

/// How long the last words may take.
const DRAIN: Duration = Duration::from_secs(60);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(5);
/// Least share of the connections that moved, in the middle of a message and
/// with unsent bytes: with fewer, little is proved.
const LEAST: f64 = 0.05;
/// Descriptors that come and go with visitors and callers.
const COMING_AND_GOING: f64 = 32.0;

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct HotRestart {
    /// Connections; two and two talk.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(40..=15_000))]
    connections: u32,
    /// Members of the group: the first ones. The very first talks to it alone.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Hot restarts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    upgrades: u32,
    /// Program of the first, third … new process, on the gateway's machine.
    /// Default: the one that runs.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Program of the second, fourth … one.
    #[arg(long, value_name = "PATH", requires = "binary")]
    back: Option<PathBuf>,
    /// Seconds from the end of a hot restart to the next.
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// Messages per second, all together.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Heartbeats per second, all together. Default: one of each connection
    /// every three seconds.
    #[arg(long)]
    beats: Option<f64>,
    /// New connections per second that talk once and leave.
    #[arg(long, default_value_t = 50.0)]
    visits: f64,
}

impl Scenario for HotRestart {
    fn name(&self) -> &'static str {
        "hot-restart"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let program = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string())
        };
        vec![
            ("connections", self.connections.to_string()),
            ("members", self.members.to_string()),
            ("upgrades", self.upgrades.to_string()),
            ("binary", program(&self.binary)),
            ("back", program(&self.back)),
            ("everyS", self.every.to_string()),
            ("rate", format!("{}/s", self.rate)),
            ("beats", format!("{:.0}/s", self.beats())),
            ("visits", format!("{}/s", self.visits)),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        if with == Comparison::OneWorker { Compared::InTurn } else { Compared::Never }
    }

    fn wants_fresh(&self) -> bool {
        true
    }

    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        // What is measured is the pause, not what an overloaded disk or core
        // does to it: that is a matter of limits on the figures.
        vec![("TIDEGATE_HANDOVER_PAUSE", "30s"), ("TIDEGATE_LIMITS_SEND_WAIT", "30s")]
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let shares = Shares::of(self.connections, self.members, self.rate, self.beats());
        let group = format!("g:load-{}", stage.nonce);
        let members: Vec<u64> = (0..shares.members).map(|index| stage.user(index)).collect();
        stage.side.admin()?.create(&group, &members)?;
        let mut swarm = Swarm::new()?;
        stage.open(&mut swarm, shares.first_slow)?;
        swarm.set_receive_buffer(Some(crowd::RECEIVE));
        stage.open_more(&mut swarm, shares.first_slow..self.connections)?;
        swarm.set_receive_buffer(None);
        let mut crowd = Crowd::new(shares, &group, stage.first_user);
        let ports = swarm.ports();
        let visitors = Visitors::start(stage, self.visits)?;
        stage.begin("echoes");
        let mut upgrades = Upgrades::default();
        self.drive(stage, &mut swarm, &mut crowd, REST, None)?;
        for number in 0..self.upgrades {
            let binary = if number % 2 == 1 && self.back.is_some() { &self.back } else { &self.binary };
            crowd.close_ears(&mut swarm, number)?;
            let asked = Asked::start(stage, crowd.slow_users(), number, binary.clone())?;
            self.drive(stage, &mut swarm, &mut crowd, DRAIN * 2, Some(&asked))?;
            let upgrade = asked.finish();
            let failed = upgrade.is_err();
            upgrades.take(upgrade, &mut stage.side.processes, &mut round);
            if let Some(pid) = upgrades.newest().filter(|_| !failed) {
                stage.side.handed_over(pid);
            }
            stage.begin("echoes");
            self.drive(stage, &mut swarm, &mut crowd, Duration::from_secs_f64(self.every), None)?;
            let end = Instant::now() + DRAIN;
            while crowd.is_behind() && Instant::now() < end && swarm.open() > 0 {
                self.drive(stage, &mut swarm, &mut crowd, LOOK, None)?;
            }
            if failed || swarm.open() == 0 {
                break;
            }
        }
        visitors.finish(&mut round)?;
        let end = Instant::now() + DRAIN;
        while !crowd.is_settled() && Instant::now() < end && swarm.open() > 0 {
            crowd.listen(stage.progress, &mut swarm, Instant::now() + LOOK)?;
        }
        if swarm.ports() != ports {
            round.problem("a connection is not the one it was");
        }
        crowd.judge(&mut round);
        upgrades.judge(&mut round, self.upgrades);
        swarm.clear();
        stage.side.admin()?.delete(&group)?;
        Ok(round)
    }
}

impl HotRestart {
    fn beats(&self) -> f64 {
        self.beats.unwrap_or_else(|| f64::from(self.connections) / 3.0)
    }

    /// Everybody talks for `span`, or until what was asked for is answered.
    fn drive(
        &self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        crowd: &mut Crowd,
        span: Duration,
        asked: Option<&Asked>,
    ) -> Result<()> {
        let end = Instant::now() + span;
        crowd.resume();
        while Instant::now() < end && !asked.is_some_and(Asked::is_over) && swarm.open() > 0 {
            crowd.talk(swarm, asked.is_some())?;
            if asked.is_none() {
                crowd.open_ears(swarm)?;
            }
            crowd.listen(stage.progress, swarm, Instant::now() + LOOK)?;
        }
        // What was begun is ended.
        crowd.finish_halves(swarm)
    }
}

/// `share` of `all`.
fn share(part: f64, all: f64) -> f64 {
    part / all.max(1.0)
}

/// The least and the most of what was seen.
fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() { (0.0, 0.0) } else { (least, most) }
}

/// As a figure.
fn millis(duration: Duration) -> f64 {
    float(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)) / 1_000.0
}
