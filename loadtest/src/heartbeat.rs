//! Connections that send nothing but heartbeats: what one frame in and one
//! out costs when nothing happens in between.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Stage;
use crate::frame;
use crate::opening::Opening;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::report::{Latencies, Report};

/// Before figures are taken, so that the first seconds do not count.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the last echoes may take.
const DRAIN: Duration = Duration::from_secs(10);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Heartbeat {
    /// Connections.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Heartbeats each has in flight at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Heartbeats per second, all connections together. Default: back to back.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds figures are taken for.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
}

impl Heartbeat {
    /// Runs it.
    pub(crate) async fn run(&self, stage: Stage) -> Result<Report> {
        let peers = Opening::run(&stage, self.connections, None).await?.complete()?;
        let every = self.rate.map(|rate| Duration::from_secs_f64(f64::from(self.connections) / rate));
        let begin = Instant::now() + WARM_UP;
        let end = begin + Duration::from_secs(self.duration);
        let mut tasks = JoinSet::new();
        for (index, peer) in (0_u32..).zip(peers) {
            // Spread over one interval, as real ones are.
            let spread = every.map_or(Duration::ZERO, |every| {
                every.mul_f64(f64::from(index) / f64::from(self.connections))
            });
            let pace = Pace::new(Instant::now() + spread, end, self.in_flight, every);
            tasks.spawn(echoes(peer, pace, begin, end));
        }
        sleep_until(begin).await;
        let start = stage.servers.sample()?;
        sleep_until(end).await;
        let finish = stage.servers.sample()?;
        let (mut count, mut latencies) = (0, Latencies::default());
        while let Some(part) = tasks.join_next().await {
            let (echoed, seen) = part??;
            count += echoed;
            latencies.add(&seen)?;
        }
        let mut report = Report::new("heartbeat");
        report.add_rate("echoes", count, Duration::from_secs(self.duration));
        report.add_latencies("echo", &latencies);
        report.add_cost("Echo", finish.since(&start), count);
        Ok(report)
    }
}

/// Echoes that came from `begin` to `end`, and how long they took.
async fn echoes(mut peer: Peer, mut pace: Pace, begin: Instant, end: Instant) -> Result<(u64, Latencies)> {
    let heartbeat = frame::heartbeat();
    let mut sent: VecDeque<Instant> = VecDeque::new();
    let (mut count, mut latencies) = (0, Latencies::default());
    let mut out = Vec::new();
    let timer = sleep(Duration::ZERO);
    tokio::pin!(timer);
    loop {
        let now = Instant::now();
        while let Some(due) = pace.take(now) {
            sent.push_back(due);
            out.extend_from_slice(&heartbeat);
        }
        if !out.is_empty() {
            peer.write(&out).await?;
            out.clear();
        }
        let over = pace.is_over(now);
        if over && sent.is_empty() {
            return Ok((count, latencies));
        }
        let wake = if over { end + DRAIN } else { pace.wake() };
        if timer.deadline() != wake {
            timer.as_mut().reset(wake);
        }
        // Both arms are cancel-safe: what was read is kept by the peer.
        tokio::select! {
            read = peer.read() => read?,
            () = &mut timer => {
                if over {
                    bail!("{} heartbeats were not echoed", sent.len());
                }
                continue;
            }
        }
        let now = Instant::now();
        peer.each_message(|message| {
            if message.iter().any(|&byte| byte != 0) {
                return Ok(());
            }
            for _ in message {
                let Some(due) = sent.pop_front() else { bail!("an echo of nothing") };
                pace.answered();
                if now >= begin && now < end {
                    count += 1;
                    latencies.record(now - due);
                }
            }
            Ok(())
        })?;
    }
}
