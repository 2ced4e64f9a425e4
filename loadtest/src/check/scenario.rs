//! Traffic against gateways that others may disturb, and the verdict.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::sync::watch;
use tokio::time::sleep;

use super::fleet::{Fleet, Traffic};
use crate::history::{Rules, Verdict, check};
use crate::target::Targets;

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Pairs that talk to each other, both ways.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pairs: u32,
    /// Seconds of traffic.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Acknowledged messages below which the run is void.
    #[arg(long, default_value_t = 1_000)]
    least: usize,
    /// Seconds everybody may take to have everything afterwards.
    #[arg(long, default_value_t = 15)]
    settle: u64,
    /// Milliseconds within which a connected client must have a message;
    /// without it, arriving at all is enough.
    #[arg(long)]
    live_within: Option<u64>,
    /// The store may lose what it acknowledged, if it says so (level 1).
    #[arg(long)]
    may_lose: bool,
}

impl Check {
    /// Runs it.
    pub(crate) async fn run(&self, targets: &Targets, first_user: u64) -> Result<Verdict> {
        let (_addresses, gateways) = watch::channel(targets.addresses());
        let traffic = Traffic::pairs(self.pairs, i64::try_from(first_user)?);
        let fleet = Fleet::start(gateways, traffic);
        if !fleet.all_served(Duration::from_secs(20)).await {
            bail!("the gateways do not serve every client");
        }
        sleep(Duration::from_secs(self.duration)).await;
        let history = fleet.finish(Duration::from_secs(self.settle)).await?;
        let rules = Rules {
            least_acked: self.least,
            may_lose: self.may_lose,
            live_within: self.live_within.map(Duration::from_millis),
            ..Rules::default()
        };
        Ok(check(&history, &rules))
    }
}
