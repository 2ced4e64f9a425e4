//! Pairs: one side sends text messages, the other receives; every message is
//! accounted for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Stage;
use crate::opening::Opening;
use crate::pace::Pace;
use crate::pair::{self, Outcome, Plan};
use crate::report::Report;

/// Before figures are taken, so that the first seconds do not count.
const WARM_UP: Duration = Duration::from_secs(1);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct P2p {
    /// Pairs, of two connections each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pairs: u32,
    /// Messages each pair has unacknowledged at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Messages per second, all pairs together. Default: back to back.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds figures are taken for.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Bytes of text.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Receivers confirm what they got (DELIVERED), as real clients do.
    #[arg(long)]
    confirm: bool,
}

impl P2p {
    /// Runs it.
    pub(crate) async fn run(&self, stage: Stage) -> Result<Report> {
        // Users 2n and 2n+1 are a pair, next to each other so that they are
        // on different gateways when there are two.
        let mut peers = Opening::run(&stage, 2 * self.pairs, None).await?.complete()?.into_iter();
        let run = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?.as_millis();
        let every = self.rate.map(|rate| Duration::from_secs_f64(f64::from(self.pairs) / rate));
        let now = Instant::now();
        let begin = now + WARM_UP;
        let end = begin + Duration::from_secs(self.duration);
        let mut tasks = JoinSet::new();
        for (index, user) in (0..self.pairs).zip((stage.first_user..).step_by(2)) {
            let plan = Plan {
                conversation: format!("p2p:{user}:{}", user + 1),
                prefix: format!("load-{run:x}-"),
                size: self.size,
                confirm: self.confirm,
                begin,
                end,
            };
            let spread =
                every.map_or(Duration::ZERO, |every| every.mul_f64(f64::from(index) / f64::from(self.pairs)));
            let pace = Pace::new(now + spread, end, self.in_flight, every);
            let (sender, receiver) = peers.next().zip(peers.next()).context("a pair is incomplete")?;
            tasks.spawn(pair::run(sender, receiver, plan, pace));
        }
        sleep_until(begin).await;
        let start = stage.servers.sample()?;
        sleep_until(end).await;
        let finish = stage.servers.sample()?;
        let mut whole = Outcome::default();
        while let Some(part) = tasks.join_next().await {
            let part = part??;
            whole.acked += part.acked;
            whole.delivered += part.delivered;
            whole.ack.add(&part.ack)?;
            whole.delivery.add(&part.delivery)?;
            whole.faults.add(&part.faults);
        }
        let within = Duration::from_secs(self.duration);
        let mut report = Report::new("p2p");
        report.add_rate("acked", whole.acked, within);
        report.add_rate("delivered", whole.delivered, within);
        report.add_latencies("ack", &whole.ack);
        report.add_latencies("delivery", &whole.delivery);
        report.add_cost("Message", finish.since(&start), whole.acked);
        let faults = whole.faults;
        report.add("lost", faults.lost);
        report.add("outOfOrder", faults.out_of_order);
        report.add("wrongSeq", faults.wrong_seq);
        report.add("unanswered", faults.unanswered);
        report.add("duplicated", faults.duplicated);
        report.add("refused", faults.refused);
        if !faults.is_kept() {
            report.fail("messages were lost, out of order or left unanswered");
        }
        Ok(report)
    }
}
