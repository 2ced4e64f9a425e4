//! One group: a message to everybody, one or some under way, and what each
//! copy costs.

mod confirm;
mod crowd;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use tidegate::internal::Payload;
use tidegate::proto::Custom;

use self::confirm::{Counts, confirm};
use self::crowd::{Crowd, UnderWay};

use super::beside::Beside;
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::floor::RAW;
use crate::frame::{self, Template};
use crate::numbers::float;
use crate::round::Round;
use crate::scan::Seen;
use crate::swarm::{Swarm, Told};
use crate::witness::Witness;

/// How long a message may take to the last member.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages before figures are taken: so many times the window.
const WARM_UP: u32 = 3;
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(100);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Group {
    /// Members; the first one sends.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Members that are online. Default: all of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    online: Option<u32>,
    /// Everybody says at the end what he has, so many of them that they have
    /// read it.
    #[arg(long)]
    readers: Option<u32>,
    /// Messages figures are taken of.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Messages under way at most: sent, and not everybody has them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// The run's own gateways keep their limit of messages per second, above
    /// which members are told to pull; otherwise every copy is pushed.
    #[arg(long)]
    hot: bool,
    /// Ten pairs send so many messages per second to each other meanwhile.
    #[arg(long)]
    beside: Option<f64>,
    /// Characters of text in a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

impl Scenario for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("members", self.members.to_string()),
            ("online", self.online().to_string()),
            ("messages", self.messages.to_string()),
            ("inFlight", self.in_flight.to_string()),
            ("hot", self.hot.to_string()),
            ("textBytes", self.size.to_string()),
            ("besidePerSecond", self.beside.map_or("none".to_owned(), |rate| rate.to_string())),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        Compared::unless_bare(with)
    }

    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        if self.hot { Vec::new() } else { vec![("TIDEGATE_GROUPS_PUSH_RATE", "1000000")] }
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let group = format!("g:load-{}", stage.nonce);
        let admin = stage.side.admins.first().cloned();
        if let Some(admin) = &admin {
            let members: Vec<u64> = (0..self.members).map(|index| stage.user(index)).collect();
            admin.create(&group, &members)?;
        }
        let mut swarm = Swarm::new()?;
        let outcome = self.measure(stage, &mut swarm, &group);
        swarm.clear();
        if let Some(admin) = &admin {
            // A gateway that is gone has no group to remove.
            let _ = admin.delete(&group);
            let _ = admin.settle(0, REST);
        }
        outcome
    }
}

impl Group {
    fn online(&self) -> u32 {
        self.online.unwrap_or(self.members).min(self.members)
    }

    fn measure(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, group: &str) -> Result<Round> {
        let mut round = Round::default();
        stage.open(swarm, self.online())?;
        lost(&mut round, "at rest", &stage.pass(swarm, REST)?);
        let witness = self.witness(stage, group)?;
        let mut crowd = Crowd::new(group, &stage.nonce, self.online(), witness)?;
        let mut template = Template::text(group, &crowd.prefix, &"x".repeat(self.size))?;
        stage.begin("copies");
        let warm_up = WARM_UP * self.in_flight;
        self.send(stage, swarm, &mut crowd, &mut template, 1..=warm_up)?;
        // Before and after, so that neither has the warmer sockets.
        let raw = self.raw_loop(stage, swarm, &mut crowd)?;
        let beside = match self.beside {
            Some(rate) if !stage.side.is_floor() => Some(Beside::start(stage, rate)?),
            _ => None,
        };
        crowd.reset();
        let counts = Counts::now(stage.side);
        let before = stage.side.processes.sample();
        let begin = Instant::now();
        self.send(stage, swarm, &mut crowd, &mut template, warm_up + 1..=warm_up + self.messages)?;
        let cost = stage.side.processes.sample().since(&before);
        round.add("copiesPerSecond", float(crowd.copies) / begin.elapsed().as_secs_f64());
        round.add_cost("Delivery", &cost, crowd.copies);
        if !stage.side.is_floor() {
            round.add("hints", float(crowd.pulls.hints));
        }
        if let Some((before, after)) = counts.zip(Counts::now(stage.side)) {
            after.add_since(&before, "Message", self.messages, &mut round);
        }
        if let Some(beside) = beside {
            beside.finish(&mut round)?;
        }
        if let Some((before, after)) = raw.zip(self.raw_loop(stage, swarm, &mut crowd)?) {
            let own = cost.cpu.as_secs_f64() * 1e6 / float(crowd.copies.max(1));
            let raw = f64::midpoint(before, after);
            round.add("rawLoopCpuUsPerDelivery", raw);
            round.add("floorOverRawLoop", own / raw.max(1e-9));
        }
        if let Some(readers) = self.readers.filter(|_| !stage.side.is_floor()) {
            confirm(stage, swarm, &crowd, readers, &mut round)?;
        }
        round.add_latencies("stored", crowd.stored);
        round.add_latencies("copy", crowd.copy);
        round.add_latencies("lastCopy", crowd.whole);
        round.problems.append(&mut crowd.problems);
        if let Some(witness) = crowd.witness {
            stage.judge(witness, &mut round);
        }
        if crowd.disorder > 0 {
            round.problem(format!("{} copies were doubled, missing or out of order", crowd.disorder));
        }
        Ok(round)
    }

    /// Of the gateway: the floor keeps no history.
    fn witness(&self, stage: &Stage<'_>, group: &str) -> Result<Option<Witness>> {
        if stage.side.is_floor() {
            return Ok(None);
        }
        let mut witness = Witness::of((0..stage.watched.min(self.online())).collect(), stage.first_user)?;
        let users = witness.users();
        for index in 0..stage.watched.min(self.online()) {
            witness.connected(index);
            witness.told(index, Instant::now(), &Told::Said(Seen::Ready));
        }
        if !users.is_empty() {
            witness.enter(group, users);
        }
        Ok(Some(witness))
    }

    /// Sends these messages, never more under way than allowed, until all
    /// members have all of them.
    fn send(
        &self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        crowd: &mut Crowd,
        template: &mut Template,
        mut numbers: std::ops::RangeInclusive<u32>,
    ) -> Result<()> {
        let window = usize::try_from(self.in_flight)?;
        let mut out = Vec::new();
        loop {
            while crowd.under_way.len() < window
                && let Some(number) = numbers.next()
            {
                let under_way =
                    UnderWay { due: Instant::now(), missing: self.online() - 1, is_stored: false };
                crowd.under_way.insert(number, under_way);
                template.write(number, &mut out);
                if let Some(witness) = &mut crowd.witness {
                    let id = format!("{}{number:010}", crowd.prefix);
                    witness.sent(0, &crowd.group, &id, &"x".repeat(self.size));
                }
            }
            if !out.is_empty() {
                swarm.send(0, &out)?;
                out.clear();
            }
            if crowd.under_way.is_empty() {
                return Ok(());
            }
            crowd.pull(swarm)?;
            swarm.keep_alive()?;
            swarm.turn(Instant::now() + LOOK, |index, at, told| {
                if let Some(latency) = crowd.told(index, at, &told) {
                    stage.progress.record(latency);
                }
            })?;
            let now = Instant::now();
            stage.progress.tick(now);
            let late = crowd.under_way.values().find(|one| now > one.due + PATIENCE);
            if let Some(late) = late {
                let what = if late.is_stored { "a stored message" } else { "a message that is not stored" };
                crowd.problems.push(format!("{what} did not reach {} members", late.missing));
                crowd.under_way.clear();
                return Ok(());
            }
            if swarm.open() == 0 {
                bail!("all connections are gone: {}", crowd.problems.first().map_or("", String::as_str));
            }
        }
    }

    /// The floor writes to the same sockets without being asked by anything,
    /// to all of them at a time; microseconds of CPU per frame. Only the floor
    /// does.
    fn raw_loop(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, crowd: &mut Crowd) -> Result<Option<f64>> {
        if !stage.side.is_floor() {
            return Ok(None);
        }
        let wish = format!("1 {} {}", self.in_flight, self.size);
        let request = Custom { topic: RAW.into(), payload: wish.into_bytes().into(), ..Custom::default() };
        let request = frame::envelope(Payload::Custom(request));
        let (mut ns, mut frames) = (0, 0);
        for _ in 0..(self.messages / self.in_flight / 2).max(1) {
            swarm.send(0, &request)?;
            let end = Instant::now() + PATIENCE;
            crowd.raw_copies = 0;
            loop {
                swarm.turn(end, |index, at, told| {
                    crowd.told(index, at, &told);
                })?;
                stage.progress.tick(Instant::now());
                if let Some((_, sends)) = crowd.raw
                    && crowd.raw_copies >= sends * u64::from(self.in_flight)
                {
                    break;
                }
                if Instant::now() > end {
                    bail!("the raw loop did not end");
                }
            }
            ns += crowd.raw.map_or(0, |(ns, _)| ns);
            frames += crowd.raw_copies;
            crowd.raw = None;
        }
        Ok(Some(float(ns) / 1e3 / float(frames.max(1))))
    }
}
