//! Pairs: one side sends, the other receives; every message is accounted for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::pairs::{Pairs, Plan};
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::bare::{Probe, append_and_sync, pipelined};
use crate::ground::Side;
use crate::numbers::float;
use crate::process::Processes;
use crate::round::Round;
use crate::swarm::Swarm;

/// Before figures are taken, so that the first moments do not count.
const WARM_UP: Duration = Duration::from_secs(1);
/// A stored message beyond its text: names, numbers, framing.
const AROUND_TEXT: usize = 120;
/// Calls of one round trip of the bare client.
const DEPTH: u64 = 128;

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct P2p {
    /// Pairs, of two connections each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pairs: u32,
    /// Messages each pair has unanswered at most, back to back.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Messages per second, all pairs together; latencies count from when
    /// each was due. Default: back to back.
    #[arg(long, conflicts_with = "half")]
    rate: Option<f64>,
    /// Finds the highest rate first and takes figures at half of it, beside a
    /// client that calls the append script by itself, where the run has its
    /// own Redis.
    #[arg(long)]
    half: bool,
    /// Seconds figures are taken for.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Bytes of text.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Receivers confirm what they got (DELIVERED), as real clients do.
    #[arg(long)]
    confirm: bool,
}

impl Scenario for P2p {
    fn name(&self) -> &'static str {
        "p2p"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let rate = match (self.half, self.rate) {
            (true, _) => "half of the highest".to_owned(),
            (false, Some(rate)) => format!("{rate}/s"),
            (false, None) => "back to back".to_owned(),
        };
        vec![
            ("pairs", self.pairs.to_string()),
            ("inFlight", self.in_flight.to_string()),
            ("rate", rate),
            ("durationS", self.duration.to_string()),
            ("textBytes", self.size.to_string()),
            ("confirm", self.confirm.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        match with {
            Comparison::Floor | Comparison::WithoutPresence => Compared::Never,
            // Half of what it can do is no rate to put beside the most of another.
            Comparison::Bare if self.half => Compared::Never,
            Comparison::Bare => Compared::Within,
            Comparison::OneWorker => Compared::InTurn,
        }
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let mut swarm = Swarm::new()?;
        let plan = Plan { pairs: self.pairs, size: self.size, confirm: self.confirm };
        let mut pairs = Pairs::new(plan, &stage.nonce, stage.first_user, stage.watched)?;
        stage.open(&mut swarm, 2 * self.pairs)?;
        pairs.connected();
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        stage.begin("messages");
        let window = self.in_flight;
        let span = Duration::from_secs_f64(self.duration);
        let mut rate = self.rate;
        pairs.talk(stage.progress, &mut swarm, Instant::now() + WARM_UP, rate, window)?;
        if self.half {
            pairs.reset();
            let begin = Instant::now();
            pairs.talk(stage.progress, &mut swarm, begin + span, None, window)?;
            let highest = float(pairs.acked()) / begin.elapsed().as_secs_f64();
            pairs.settle(stage.progress, &mut swarm)?;
            round.add("highestPerSecond", highest);
            rate = Some((highest / 2.0).max(1.0));
        }
        let probe = match &stage.side.redis {
            Some(redis) if self.half => Some(Probe::start(&redis.url(), self.size + AROUND_TEXT)?),
            _ => None,
        };
        pairs.reset();
        let redis = stage.side.redis.as_ref().map(|redis| Processes::new(vec![redis.pid()]));
        let redis_before = redis.as_ref().map(Processes::cpu);
        let commits = Commits::now(stage.side);
        let before = stage.side.processes.sample();
        let begin = Instant::now();
        pairs.talk(stage.progress, &mut swarm, begin + span, rate, window)?;
        let cost = stage.side.processes.sample().since(&before);
        let (acked, delivered, wall) = (pairs.acked(), pairs.delivered(), begin.elapsed().as_secs_f64());
        round.add("storedPerSecond", float(acked) / wall);
        round.add("deliveredPerSecond", float(delivered) / wall);
        round.add_cost("Message", &cost, acked);
        if let Some((redis, before)) = redis.as_ref().zip(redis_before) {
            let spent = redis.cpu().saturating_sub(before);
            round.add("redisCpuUsPerMessage", spent.as_secs_f64() * 1e6 / float(acked.max(1)));
        }
        let commits = commits.and_then(|before| Some(Commits::now(stage.side)?.since(&before)));
        pairs.settle(stage.progress, &mut swarm)?;
        let push_p99 = pairs.add_latencies(&mut round, ["stored", "push"]);
        if let Some(probe) = probe {
            let probed = probe.finish()?;
            round.add("pushP99OverScriptP99", float(push_p99) / float(probed.calls.at(0.99).max(1)));
            round.add_latencies("scriptBeside", probed.calls);
            round.add("scriptLateP99Us", float(probed.late.at(0.99)));
        }
        if let Some(witness) = pairs.judge(&mut round) {
            stage.judge(witness, &mut round);
        }
        swarm.clear();
        if stage.compared == Some(Comparison::Bare) {
            self.bare(stage, &mut round, commits.as_ref(), float(acked) / wall)?;
        }
        Ok(round)
    }
}

impl P2p {
    /// The same without a gateway, for as long.
    fn bare(
        &self,
        stage: &Stage<'_>,
        round: &mut Round,
        commits: Option<&Commits>,
        reached: f64,
    ) -> Result<()> {
        stage.progress.note("the same without a gateway");
        let (span, size) = (Duration::from_secs_f64(self.duration), self.size + AROUND_TEXT);
        let bare = if let Some(redis) = &stage.side.redis {
            pipelined(&redis.url(), u64::from(self.pairs), DEPTH, size, span)?
        } else {
            let dir =
                stage.side.own.first().context("--compare bare needs a gateway of the run's own")?.dir();
            let commits = commits.context("the gateway tells no commits")?;
            let batch = (commits.messages / commits.count).max(1.0).round();
            round.add("messagesPerCommit", batch);
            round.add("commitMeanUs", commits.seconds * 1e6 / commits.count);
            // A count of messages fits any integer.
            let batch = format!("{batch:.0}").parse()?;
            append_and_sync(dir, batch, size, span)?
        };
        round.add("barePerSecond", bare.per_second);
        round.add("storedOverBare", reached / bare.per_second.max(1e-9));
        round.add_latencies("bare", bare.latencies);
        Ok(())
    }
}

/// Commits of the embedded store so far.
struct Commits {
    count: f64,
    /// Messages in them.
    messages: f64,
    /// Writing and syncing.
    seconds: f64,
}

impl Commits {
    fn now(side: &Side) -> Option<Self> {
        let admin = side.admins.first()?;
        let metric = |name: &str| admin.metric(&format!("tidegate_store_{name}")).ok();
        let (count, messages) = (metric("commits_total")?, metric("commit_messages_total")?);
        let seconds = metric("commit_duration_seconds_sum")?;
        (count > 0.0).then_some(Self { count, messages, seconds })
    }

    fn since(self, before: &Self) -> Self {
        Self {
            count: (self.count - before.count).max(1.0),
            messages: self.messages - before.messages,
            seconds: self.seconds - before.seconds,
        }
    }
}
