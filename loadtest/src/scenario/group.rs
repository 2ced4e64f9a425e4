//! One group: a message to everybody, one or some under way, and what each
//! copy costs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tidegate::internal::Payload;
use tidegate::proto::{Custom, MessageType, SendMessageReq, SyncReq, send_message_req};

use super::beside::Beside;
use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::floor::RAW;
use crate::frame::{self, Template};
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::{Ack, Push, Seen};
use crate::swarm::{Swarm, Told};
use crate::witness::Witness;

/// How long a message may take to the last member.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages before figures are taken.
const WARM_UP: u32 = 2;
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(100);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Group {
    /// Members, all online; the first one sends.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Messages figures are taken of.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Messages under way at most: sent, and not everybody has them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// Ten pairs send so many messages per second to each other meanwhile.
    #[arg(long)]
    beside: Option<f64>,
    /// Characters of text in a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

/// One message under way.
struct UnderWay {
    due: Instant,
    /// Members that do not have it.
    missing: u32,
    is_stored: bool,
}

/// The group as its members see it.
struct Crowd {
    group: String,
    prefix: String,
    under_way: HashMap<u32, UnderWay>,
    /// Number and seq of the newest message of each client.
    last: Vec<(u32, i64)>,
    /// Clients that were told to pull, and when.
    pulls: Vec<(Instant, u32)>,
    copies: u64,
    stored: Latencies,
    copy: Latencies,
    whole: Latencies,
    disorder: u64,
    problems: Vec<String>,
    /// What a raw loop cost, nanoseconds and sends.
    raw: Option<(u64, u64)>,
    raw_copies: u64,
    witness: Option<Witness>,
}

impl Scenario for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("members", self.members.to_string()),
            ("messages", self.messages.to_string()),
            ("inFlight", self.in_flight.to_string()),
            ("textBytes", self.size.to_string()),
            ("besidePerSecond", self.beside.map_or("none".to_owned(), |rate| rate.to_string())),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        Compared::unless_bare(with)
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
    fn measure(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, group: &str) -> Result<Round> {
        let mut round = Round::default();
        stage.open(swarm, self.members)?;
        lost(&mut round, "at rest", &stage.pass(swarm, REST)?);
        let mut crowd = Crowd {
            group: group.to_owned(),
            prefix: format!("{}-", stage.nonce),
            under_way: HashMap::new(),
            last: vec![(0, 0); usize::try_from(self.members)?],
            pulls: Vec::new(),
            copies: 0,
            stored: Latencies::default(),
            copy: Latencies::default(),
            whole: Latencies::default(),
            disorder: 0,
            problems: Vec::new(),
            raw: None,
            raw_copies: 0,
            witness: self.witness(stage, group)?,
        };
        let mut template = Template::new(self.message(group, &crowd.prefix))?;
        stage.begin("copies");
        self.send(stage, swarm, &mut crowd, &mut template, 1..=WARM_UP)?;
        let beside = match self.beside {
            Some(rate) if !stage.side.is_floor() => Some(Beside::start(stage, rate)?),
            _ => None,
        };
        crowd.copies = 0;
        (crowd.stored, crowd.copy, crowd.whole) = Default::default();
        let before = stage.side.processes.sample();
        let begin = Instant::now();
        self.send(stage, swarm, &mut crowd, &mut template, WARM_UP + 1..=WARM_UP + self.messages)?;
        let cost = stage.side.processes.sample().since(&before);
        round.add("copiesPerSecond", float(crowd.copies) / begin.elapsed().as_secs_f64());
        round.add_cost("Delivery", &cost, crowd.copies);
        if let Some(beside) = beside {
            beside.finish(&mut round)?;
        }
        if stage.side.is_floor() {
            let raw = self.raw_loop(stage, swarm, &mut crowd)?;
            let own = cost.cpu.as_secs_f64() * 1e6 / float(crowd.copies.max(1));
            round.add("rawLoopCpuUsPerDelivery", raw);
            round.add("floorOverRawLoop", own / raw.max(1e-9));
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
        let mut witness = Witness::of((0..stage.watched.min(self.members)).collect(), stage.first_user)?;
        let users = witness.users();
        for index in 0..stage.watched.min(self.members) {
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
                let under_way = UnderWay { due: Instant::now(), missing: self.members - 1, is_stored: false };
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
            swarm.turn(Instant::now() + LOOK, |index, at, told| {
                let before = crowd.copies;
                crowd.told(index, at, &told);
                stage.progress.count(crowd.copies - before);
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
    /// to all of them at a time; microseconds of CPU per frame.
    fn raw_loop(&self, stage: &mut Stage<'_>, swarm: &mut Swarm, crowd: &mut Crowd) -> Result<f64> {
        let wish = format!("1 {} {}", self.in_flight, self.size);
        let request = Custom { topic: RAW.into(), payload: wish.into_bytes().into(), ..Custom::default() };
        let request = frame::envelope(Payload::Custom(request));
        let (mut ns, mut frames) = (0, 0);
        for _ in 0..(self.messages / self.in_flight).max(1) {
            swarm.send(0, &request)?;
            let end = Instant::now() + PATIENCE;
            crowd.raw_copies = 0;
            loop {
                swarm.turn(end, |index, at, told| crowd.told(index, at, &told))?;
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
        Ok(float(ns) / 1e3 / float(frames.max(1)))
    }

    fn message(&self, group: &str, prefix: &str) -> Payload {
        Payload::Send(SendMessageReq {
            conversation_id: group.to_owned(),
            client_msg_id: format!("{prefix}{}", Template::PLACE),
            r#type: MessageType::Text.into(),
            content: Some(send_message_req::Content::TextContent("x".repeat(self.size))),
            ..SendMessageReq::default()
        })
    }
}

impl Crowd {
    fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) {
        if let Some(witness) = &mut self.witness {
            witness.told(index, at, told);
        }
        match told {
            Told::Said(Seen::Push(push, _)) => self.push(index, at, push),
            Told::Said(Seen::Ack(ack)) => self.ack(at, ack),
            Told::Said(Seen::Hint { delay_ms, .. }) => {
                self.pulls.push((at + Duration::from_millis(*delay_ms), index));
            }
            Told::Said(Seen::PageEnd { has_more: true }) => self.pulls.push((at, index)),
            Told::Said(Seen::Custom { topic, payload }) if *topic == RAW.as_bytes() => {
                let text = String::from_utf8_lossy(payload);
                self.raw = text
                    .split_once(' ')
                    .and_then(|(ns, sends)| Some((ns.parse().ok()?, sends.parse().ok()?)));
            }
            Told::Said(Seen::Error { message, .. }) => {
                self.problems.push(format!("refused: {}", String::from_utf8_lossy(message)));
            }
            Told::Said(Seen::Kick { reason }) => self.problems.push(format!("kicked: reason {reason}")),
            Told::Gone(why) => self.problems.push(format!("a connection is gone: {why:#}")),
            Told::Said(_) => {}
        }
    }

    fn push(&mut self, index: u32, at: Instant, push: &Push<'_>) {
        let Some(number) = self.number(push.client_msg_id) else {
            self.raw_copies += 1;
            return;
        };
        let Some(last) = usize::try_from(index).ok().and_then(|place| self.last.get_mut(place)) else {
            return;
        };
        let follows = number == last.0 + 1 && (last.1 == 0 || push.seq == last.1 + 1);
        *last = (number, push.seq);
        if !follows {
            self.disorder += 1;
        }
        let Some(one) = self.under_way.get_mut(&number) else {
            self.disorder += 1;
            return;
        };
        let latency = at.saturating_duration_since(one.due);
        self.copies += 1;
        self.copy.record(latency);
        one.missing = one.missing.saturating_sub(1);
        if one.missing == 0 {
            self.whole.record(latency);
            self.end(number);
        }
    }

    fn ack(&mut self, at: Instant, ack: &Ack<'_>) {
        let Some(number) = self.number(ack.client_msg_id) else { return };
        let Some(one) = self.under_way.get_mut(&number) else { return };
        if ack.status == Ack::STORED {
            one.is_stored = true;
            self.stored.record(at.saturating_duration_since(one.due));
            self.end(number);
        } else {
            self.problems.push(format!("message {number} was refused with error {}", ack.error));
            self.under_way.remove(&number);
        }
    }

    /// It is over when it is stored and everybody has it.
    fn end(&mut self, number: u32) {
        if self.under_way.get(&number).is_some_and(|one| one.is_stored && one.missing == 0) {
            self.under_way.remove(&number);
        }
    }

    /// Asks for what was announced and is due.
    fn pull(&mut self, swarm: &mut Swarm) -> Result<()> {
        let now = Instant::now();
        for (at, index) in std::mem::take(&mut self.pulls) {
            if at > now {
                self.pulls.push((at, index));
                continue;
            }
            let last = self.last.get(usize::try_from(index)?).context("a client")?.1;
            let request = SyncReq {
                conversation_id: self.group.clone(),
                from_seq: last + 1,
                limit: 500,
                ..SyncReq::default()
            };
            swarm.send(index, &frame::envelope(Payload::Sync(request)))?;
        }
        Ok(())
    }

    fn number(&self, id: &[u8]) -> Option<u32> {
        std::str::from_utf8(id.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }
}
