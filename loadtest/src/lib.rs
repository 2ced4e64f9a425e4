//! Load tests for Tidegate, with a verdict: many clients on one thread, what
//! they saw, what it cost the server, and what the least a server can do
//! would have cost.
//!
//! | module | owns |
//! |---|---|
//! | `ground` | what a run is against: gateways, a Redis, the floor |
//! | `target`, `token` | where clients go, and who they say they are |
//! | `frame`, `scan` | what clients write, and what they read of the server |
//! | `swarm` | many clients on one thread |
//! | `floor` | the least a server can do, in a process of its own |
//! | `admin`, `process` | the server's own words, and its cost from `/proc` |
//! | `bare` | what storing costs without a gateway |
//! | `scenario`, `run` | what is done to a server, in rounds |
//! | `round`, `report`, `latency`, `progress`, `numbers` | figures |
//! | `witness` | clients whose every word goes through the history checker |
//! | `history` | what clients saw, and whether the delivery promise was kept |
//! | `check`, `peer` | clients that write down what they see, and reconnect |
//!
//! The exit code is 0 when everything asked for was kept, 1 when something
//! was broken, 2 when the run could not be made or proves nothing.

mod admin;
mod bare;
pub mod check;
mod floor;
pub mod frame;
mod ground;
pub mod history;
mod latency;
mod numbers;
mod peer;
mod process;
mod progress;
mod report;
mod round;
mod run;
mod scan;
mod scenario;
mod swarm;
mod target;
mod token;
mod witness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::ground::{GroundArgs, Linked, Side};
use crate::report::{Ending, Limit, Report};

/// Puts load on a gateway, judges what came of it, and says what it cost.
#[derive(Debug, Parser)]
#[command(name = "tidegate-loadtest", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// What every scenario needs.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    ground: GroundArgs,
    /// User of the first connection; the others count on from it, each round
    /// a million further. Default: 1000000, or drawn with --url.
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    first_user: Option<u64>,
    /// Connections being opened at once.
    #[arg(long, global = true, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    opening: u32,
    /// Puts the same load on something simpler, in turn.
    #[arg(long, global = true)]
    compare: Option<scenario::Comparison>,
    /// Rounds; figures are medians. Default: 1, and 5 with --compare.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Clients whose every message goes through the history checker; the
    /// others are counted.
    #[arg(long, global = true, default_value_t = 64)]
    watched: u32,
    /// What a figure may be, e.g. cpuUsPerEcho<=3, or cpuUsPerEcho:ratio<=2
    /// against the floor; otherwise the run is broken.
    #[arg(long, global = true)]
    limit: Vec<Limit>,
    /// Writes everything there; - is standard output.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts there.
    #[arg(long, global = true, value_name = "FILE")]
    html: Option<PathBuf>,
    /// No line per second.
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Handshakes, as fast as they come or at a rate.
    Connect(scenario::Connect),
    /// Connections that do nothing but live.
    Idle(scenario::Idle),
    /// Connections that send nothing but heartbeats.
    Heartbeat(scenario::Heartbeat),
    /// A message to every member of a group.
    Group(scenario::Group),
    /// Pairs: one side sends, the other receives.
    P2p(scenario::P2p),
    /// All receivers leave at once and come back for what they missed.
    ReconnectWave(scenario::ReconnectWave),
    /// Members of a busy group that stop reading for a while.
    SlowReaders(scenario::SlowReaders),
    /// The process is replaced again and again while everybody talks.
    HotRestart(scenario::HotRestart),
    /// Idle connections, churn and messages, for long.
    Soak(scenario::Soak),
    /// Pairs that talk both ways, reconnect and repeat; every message is
    /// checked against what everybody saw.
    Check(check::Check),
    /// The floor's process.
    #[command(hide = true)]
    Floor(floor::Serve),
}

/// Exit code of a run that could not be made, or proves nothing.
const VOID: u8 = 2;

/// The program: reads its arguments, runs one scenario, prints the report.
pub fn main() -> ExitCode {
    if let Some(gateway) = Linked::from_arguments() {
        return finish(gateway.run());
    }
    let arguments = Arguments::parse();
    let common = &arguments.common;
    let outcome = match &arguments.verb {
        Verb::Connect(scenario) => run::run(common, scenario),
        Verb::ReconnectWave(scenario) => run::run(common, scenario),
        Verb::SlowReaders(scenario) => run::run(common, scenario),
        Verb::HotRestart(scenario) => run::run(common, scenario),
        Verb::Soak(scenario) => run::run(common, scenario),
        Verb::Idle(scenario) => run::run(common, scenario),
        Verb::Heartbeat(scenario) => run::run(common, scenario),
        Verb::Group(scenario) => run::run(common, scenario),
        Verb::P2p(scenario) => run::run(common, scenario),
        Verb::Check(scenario) => checked(common, scenario),
        Verb::Floor(floor) => return finish(floor.run().map(|()| ExitCode::SUCCESS)),
    };
    finish(outcome.and_then(|report| {
        publish(common, &report)?;
        Ok(match report.ending() {
            Ending::Kept => ExitCode::SUCCESS,
            Ending::Broken => ExitCode::FAILURE,
            Ending::Void => ExitCode::from(VOID),
        })
    }))
}

fn finish(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("tidegate-loadtest: {error:#}");
        ExitCode::from(VOID)
    })
}

fn publish(common: &Common, report: &Report) -> Result<()> {
    if let Some(path) = &common.html {
        std::fs::write(path, report.to_html()).with_context(|| path.display().to_string())?;
    }
    let json = serde_json::to_string_pretty(&report.to_json())?;
    match &common.json {
        Some(path) if path == Path::new("-") => println!("{json}"),
        Some(path) => {
            std::fs::write(path, json).with_context(|| path.display().to_string())?;
            print!("{report}");
        }
        None => print!("{report}"),
    }
    Ok(())
}

/// The scenario that is not driven in rounds.
fn checked(common: &Common, scenario: &check::Check) -> Result<Report> {
    let side = Side::gateway(&common.ground, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let verdict = runtime.block_on(scenario.run(&side.targets, common.first_user.unwrap_or(1_000_000)))?;
    let mut report = Report::new("check", vec![("gateway".to_owned(), side.what.clone())]);
    report.judged(verdict);
    report.limit(&common.limit);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
