//! Opens connections, holds them idle, and lets them go.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Stage;
use crate::frame;
use crate::opening::Opening;
use crate::report::{Report, float};

/// Idle ones heartbeat this often, as clients are told to.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long the server may take to notice that all have left.
const SETTLE: Duration = Duration::from_secs(10);
/// Queues and caches of the server come to rest before memory is read.
const REST: Duration = Duration::from_secs(1);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Connections; a process may have 20,000 descriptors here and there.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Opened per second. Default: as fast as they come.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds they are held idle.
    #[arg(long, default_value_t = 5)]
    hold: u64,
}

impl Connect {
    /// Runs it.
    pub(crate) async fn run(&self, stage: Stage) -> Result<Report> {
        let before = stage.servers.connections().await?;
        let start = stage.servers.sample()?;
        let mut opening = Opening::run(&stage, self.connections, self.rate).await?;
        let opened = stage.servers.sample()?;
        sleep(REST).await;
        let rested = stage.servers.sample()?;
        let held_from = Instant::now();
        self.hold(&mut opening).await?;
        let held = stage.servers.sample()?;
        let count = u64::try_from(opening.peers.len())?;
        let lost = opening.peers.iter().filter(|(_, peer)| peer.is_gone()).count();
        opening.peers.clear();
        let left = stage.servers.settle(before, SETTLE).await?;
        sleep(REST).await;
        let end = stage.servers.sample()?;

        let mut report = Report::new("connect");
        report.add_rate("handshakes", count, opening.took);
        report.add_latencies("handshake", &opening.latencies);
        report.add_cost("Handshake", opened.since(&start), count);
        let per_connection = |memory: u64| float(memory.saturating_sub(start.memory)) / float(count.max(1));
        report.add_rounded("serverBytesPerConnection", per_connection(rested.memory));
        report.add_rounded("serverBytesKeptPerConnection", per_connection(end.memory));
        report.add("heldSeconds", held_from.elapsed().as_secs());
        report.add_rounded("serverCoresIdle", held.since(&rested).cores());
        if let Some(error) = opening.failure {
            report.add("failedHandshakes", opening.failed);
            report.fail(format!("{error:#}"));
        }
        for (what, number) in
            [("lost while idle", u64::try_from(lost)?), ("never left", left - before.min(left))]
        {
            if number > 0 {
                report.fail(format!("{number} connections {what}"));
            }
        }
        Ok(report)
    }

    async fn hold(&self, opening: &mut Opening) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(self.hold);
        let heartbeat = frame::heartbeat();
        loop {
            let next = Instant::now() + HEARTBEAT;
            sleep_until(next.min(end)).await;
            if next >= end {
                return Ok(());
            }
            for (index, peer) in &mut opening.peers {
                peer.write(&heartbeat).await.map_err(|error| anyhow!("connection {index}: {error:#}"))?;
            }
        }
    }
}
