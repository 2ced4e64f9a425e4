//! One large group: a message to everybody at a time, and what it costs.

mod admin;
mod member;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use self::admin::{Counts, counts, request};
use self::member::{Copy, Member, Phase, send};
use crate::Stage;
use crate::opening::Opening;
use crate::peer::Peer;
use crate::report::{Latencies, Report, float};

/// How long a message may take to the last member.
const PATIENCE: Duration = Duration::from_secs(30);
/// Queues come to rest before memory and counts are read.
const REST: Duration = Duration::from_secs(1);
/// What members confirm is written behind, and told once a second.
const SETTLE: Duration = Duration::from_secs(4);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Group {
    /// Members of the group; the first one sends.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Members that are online. Default: all of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    online: Option<u32>,
    /// Messages; each is sent when the one before has reached everybody.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Characters of text in a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Members that say at the end that they have read all; everybody else
    /// says that it has it.
    #[arg(long, default_value_t = 1_000)]
    readers: u32,
}

/// What the messages did.
#[derive(Default)]
struct FanOut {
    stored: Latencies,
    copies: Latencies,
    whole: Latencies,
    missing: u64,
}

impl Group {
    /// Runs it.
    pub(crate) async fn run(&self, stage: Stage) -> Result<Report> {
        let admin = stage.admins.first().context("no admin address")?;
        let group = format!("g:load-{}", std::process::id());
        let mut report = Report::new("group");
        let created = Instant::now();
        let users: Vec<u64> = (stage.first_user..).zip(0..self.members).map(|(user, _)| user).collect();
        let body = json!({"id": group, "members": users}).to_string();
        request(admin, "POST", "/v1/conversations", &body).await?;
        report.add("members", self.members);
        report.add("createMs", millis(created));
        let outcome = self.with_group(&stage, &group, &mut report).await;
        let deleted = Instant::now();
        request(admin, "DELETE", &format!("/v1/conversations/{group}"), "").await?;
        report.add("deleteMs", millis(deleted));
        outcome.map(|()| report)
    }

    async fn with_group(&self, stage: &Stage, group: &str, report: &mut Report) -> Result<()> {
        let online = self.online.unwrap_or(self.members).min(self.members);
        let empty = stage.servers.sample()?;
        let opening = Opening::run(stage, online, None).await?;
        let took = opening.took;
        let mut peers = opening.complete()?.into_iter();
        sleep(REST).await;
        let full = stage.servers.sample()?;
        report.add_rate("online", u64::from(online), took);
        let memory = full.memory.saturating_sub(empty.memory);
        report.add_rounded("serverBytesPerMember", float(memory) / f64::from(online));

        let mut sender = peers.next().context("nobody sends")?;
        let (phase, phases) = watch::channel(Phase::Listen);
        // Room for all copies of one message: nobody has to wait.
        let (arrivals, mut copies) = mpsc::channel(2 * usize::try_from(online)?);
        let mut members = JoinSet::new();
        let group_id: Arc<str> = group.into();
        for (index, peer) in (1_u32..).zip(peers) {
            let reads = index <= self.readers;
            let member = Member::new(peer, Arc::clone(&group_id), reads, arrivals.clone());
            members.spawn(member.run(phases.clone()));
        }
        drop(arrivals);

        let before = (stage.servers.sample()?, counts(&stage.admins).await?);
        let mut fan_out = FanOut::default();
        for number in 1..=self.messages {
            self.fan_out(group, number, online - 1, &mut sender, &mut copies, &mut fan_out).await?;
        }
        let after = (stage.servers.sample()?, counts(&stage.admins).await?);
        let delivered = u64::from(self.messages) * u64::from(online - 1) - fan_out.missing;
        report.add("copies", delivered);
        report.add_latencies("stored", &fan_out.stored);
        report.add_latencies("copy", &fan_out.copies);
        report.add_latencies("lastCopy", &fan_out.whole);
        report.add_cost("Copy", after.0.since(&before.0), delivered);
        add_counts(report, "message", &after.1.since(&before.1), self.messages);

        phase.send(Phase::Confirm).context("nobody is left")?;
        sleep(SETTLE).await;
        let confirmed = (stage.servers.sample()?, counts(&stage.admins).await?);
        report.add("confirmations", online - 1);
        report.add("receipts", self.readers.min(online - 1));
        let cost = confirmed.0.since(&after.0);
        report
            .add_rounded("serverCpuUsPerConfirmation", cost.cpu.as_secs_f64() * 1e6 / f64::from(online - 1));
        add_counts(report, "confirmations", &confirmed.1.since(&after.1), 1);

        phase.send(Phase::Leave).context("nobody is left")?;
        let mut faults = 0;
        while let Some(member) = members.join_next().await {
            faults += member??;
        }
        report.add("missing", fan_out.missing);
        report.add("doubledOrOutOfOrder", faults);
        if fan_out.missing > 0 || faults > 0 {
            report.fail("messages were lost, doubled or out of order");
        }
        Ok(())
    }

    /// One message, until everybody has it.
    async fn fan_out(
        &self,
        group: &str,
        number: u32,
        receivers: u32,
        sender: &mut Peer,
        copies: &mut mpsc::Receiver<Copy>,
        seen: &mut FanOut,
    ) -> Result<()> {
        let begin = Instant::now();
        let seq = send(sender, group, number, &"x".repeat(self.size)).await?;
        seen.stored.record(begin.elapsed());
        if seq != i64::from(number) {
            bail!("message {number} was stored as {seq}");
        }
        let (mut left, mut last) = (receivers, begin);
        while left > 0 {
            let Ok(copy) = timeout_at(begin + PATIENCE, copies.recv()).await else { break };
            let Some(copy) = copy else { bail!("everybody has left") };
            if copy.seq == seq {
                left -= 1;
                last = last.max(copy.at);
                seen.copies.record(copy.at - begin);
            }
        }
        seen.whole.record(last - begin);
        seen.missing += u64::from(left);
        Ok(())
    }
}

fn add_counts(report: &mut Report, of: &str, counts: &Counts, times: u32) {
    report.add_rounded(&format!("{of}BusMessages"), counts.bus / f64::from(times));
    report.add_rounded(&format!("{of}RedisCommands"), counts.redis / f64::from(times));
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
