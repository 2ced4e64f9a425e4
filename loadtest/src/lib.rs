//! Load generator for Tidegate: drives a running gateway with many clients
//! and reports what they saw beside what it cost the server.
//!
//! | module | owns |
//! |---|---|
//! | `target` | where connections go and which address they leave from |
//! | `frame`, `peer` | the client: prebuilt frames, one raw socket |
//! | `opening`, `pace` | many clients at once, and when each sends |
//! | `server` | the server's CPU and memory, from `/proc` |
//! | `connect`, `heartbeat`, `p2p`, `group` | the scenarios |
//! | `verdict` | what p2p messages must have been |
//! | `history` | what clients saw, and whether the delivery promise was kept |
//! | `check` | clients that write down what they see, and their scenario |
//! | `report` | figures for eyes and programs |
//!
//! The exit code is 1 when a scenario failed or its verdict is bad, so a
//! script need not read the figures to know that messages were lost; 2 when
//! `check` saw too little to tell.

pub mod check;
mod connect;
mod frame;
mod group;
mod heartbeat;
pub mod history;
mod opening;
mod p2p;
mod pace;
mod pair;
mod peer;
mod report;
mod server;
mod target;
mod verdict;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::history::Verdict;
use crate::report::Report;
use crate::server::Servers;
use crate::target::Targets;

/// Drives a running gateway and reports what it did and what it cost.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    scenario: Scenario,
}

/// What every scenario needs.
#[derive(Debug, Args)]
struct Common {
    /// WebSocket address; given twice, connections take turns, and the two
    /// sides of a pair are on different gateways.
    #[arg(long, global = true, default_value = "ws://127.0.0.1:7700/ws")]
    url: Vec<String>,
    /// Admin address of a gateway on this machine whose cost is reported;
    /// given twice, the sum.
    #[arg(long, global = true, default_value = "127.0.0.1:7701")]
    admin: Vec<String>,
    /// User of the first connection; the others count on from it.
    #[arg(long, global = true, default_value_t = 1_000_000)]
    first_user: u64,
    /// Connections being opened at once.
    #[arg(long, global = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    opening: u32,
    /// Threads of the load generator.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    /// Figures as one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Opens connections, holds them idle, and lets them go.
    Connect(connect::Connect),
    /// Connections that send nothing but heartbeats.
    Heartbeat(heartbeat::Heartbeat),
    /// Pairs: one side sends, the other receives; every message is accounted for.
    P2p(p2p::P2p),
    /// A large group: one message to everybody at a time.
    Group(group::Group),
    /// Pairs that talk both ways, reconnect and repeat; every message is
    /// checked against what everybody saw.
    Check(check::Check),
}

/// What a scenario works with.
#[derive(Debug)]
struct Stage {
    targets: Targets,
    servers: Servers,
    admins: Vec<String>,
    first_user: u64,
    opening: u32,
}

/// The program: reads its arguments, runs one scenario, prints the figures.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(Outcome::Figures(report)) => {
            if arguments.common.json {
                println!("{}", report.to_json());
            } else {
                print!("{report}");
            }
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Outcome::Judged(verdict)) => {
            print!("{verdict}");
            match (verdict.violations.is_empty(), verdict.void.is_empty()) {
                (false, _) => ExitCode::FAILURE,
                (true, false) => ExitCode::from(VOID),
                (true, true) => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("tidegate-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code of a run that proves nothing.
const VOID: u8 = 2;

enum Outcome {
    Figures(Report),
    Judged(Verdict),
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut builder = match arguments.common.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime =
        builder.worker_threads(arguments.common.threads.max(1)).enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let common = &arguments.common;
        let targets = Targets::resolve(&common.url).await?;
        let stage = async {
            let (first_user, opening) = (common.first_user, common.opening);
            anyhow::Ok(Stage {
                servers: Servers::find(&common.admin).await?,
                admins: common.admin.clone(),
                targets: targets.clone(),
                first_user,
                opening,
            })
        };
        let report = match &arguments.scenario {
            Scenario::Connect(scenario) => scenario.run(stage.await?).await?,
            Scenario::Heartbeat(scenario) => scenario.run(stage.await?).await?,
            Scenario::P2p(scenario) => scenario.run(stage.await?).await?,
            Scenario::Group(scenario) => scenario.run(stage.await?).await?,
            Scenario::Check(scenario) => {
                return Ok(Outcome::Judged(scenario.run(&targets, common.first_user).await?));
            }
        };
        Ok(Outcome::Figures(report))
    })
}
