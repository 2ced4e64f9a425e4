//! Connections that send nothing but heartbeats: what one frame in and one
//! out costs when nothing happens in between.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::{Compared, Comparison, REST, Scenario, Stage, lost};
use crate::frame;
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::Seen;
use crate::swarm::{Swarm, Told};

/// Before figures are taken, so that the first moments do not count.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the last echoes may take.
const DRAIN: Duration = Duration::from_secs(10);

/// The scenario's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Heartbeat {
    /// Connections.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Heartbeats each has in flight at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Heartbeats per second, all connections together; latencies count from
    /// when each was due. Default: back to back.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds figures are taken for.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
}

/// Heartbeats under way, oldest first, by connection.
struct Beats {
    sent: Vec<VecDeque<Instant>>,
    echoed: u64,
    latencies: Latencies,
    /// Echoes nobody waits for.
    surplus: u64,
}

impl Scenario for Heartbeat {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let rate = self.rate.map_or("back to back".to_owned(), |rate| format!("{rate}/s"));
        vec![
            ("connections", self.connections.to_string()),
            ("inFlight", self.in_flight.to_string()),
            ("rate", rate),
            ("durationS", self.duration.to_string()),
        ]
    }

    fn compared(&self, with: Comparison) -> Compared {
        Compared::unless_bare(with)
    }

    fn round(&self, stage: &mut Stage<'_>) -> Result<Round> {
        let mut round = Round::default();
        let mut swarm = Swarm::new()?;
        stage.open(&mut swarm, self.connections)?;
        lost(&mut round, "at rest", &stage.pass(&mut swarm, REST)?);
        stage.begin("echoes");
        let mut beats = Beats {
            sent: vec![VecDeque::new(); usize::try_from(self.connections)?],
            echoed: 0,
            latencies: Latencies::default(),
            surplus: 0,
        };
        self.beat(stage, &mut swarm, &mut beats, Instant::now() + WARM_UP, &mut round)?;
        (beats.echoed, beats.latencies) = (0, Latencies::default());
        let before = stage.side.processes.sample();
        let begin = Instant::now();
        self.beat(stage, &mut swarm, &mut beats, begin + Duration::from_secs_f64(self.duration), &mut round)?;
        let cost = stage.side.processes.sample().since(&before);
        let (echoed, wall) = (beats.echoed, begin.elapsed());
        self.drain(&mut swarm, &mut beats, &mut round)?;
        round.add("echoesPerSecond", float(echoed) / wall.as_secs_f64());
        round.add_cost("Echo", &cost, echoed);
        round.add_latencies("echo", beats.latencies);
        if beats.surplus > 0 {
            round.problem(format!("{} echoes of nothing", beats.surplus));
        }
        Ok(round)
    }
}

impl Heartbeat {
    /// Keeps heartbeats under way until `end`.
    fn beat(
        &self,
        stage: &mut Stage<'_>,
        swarm: &mut Swarm,
        beats: &mut Beats,
        end: Instant,
        round: &mut Round,
    ) -> Result<()> {
        let every = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let (mut due, mut turn) = (Instant::now(), 0_u32);
        // Whose window has room, when nothing is paced.
        let mut idle: Vec<u32> = if every.is_none() { (0..self.connections).collect() } else { Vec::new() };
        let mut gone = Vec::new();
        let window = usize::try_from(self.in_flight)?;
        while Instant::now() < end {
            let now = Instant::now();
            while let Some(every) = every.filter(|_| due <= now) {
                // One that still waits for an echo sends all the same: its
                // echo counts from when it was due.
                beats.send(swarm, turn, due, 1)?;
                turn = (turn + 1) % self.connections;
                due += every;
            }
            for index in idle.drain(..) {
                let under_way = beats.waiting(index);
                beats.send(swarm, index, now, window.saturating_sub(under_way))?;
            }
            let until = if every.is_some() { due.min(end) } else { end };
            swarm.turn(until, |index, at, told| match told {
                Told::Said(Seen::Heartbeat) => {
                    if let Some(latency) = beats.echo(index, at) {
                        stage.progress.record(latency);
                    }
                    if every.is_none() && idle.last() != Some(&index) {
                        idle.push(index);
                    }
                }
                Told::Gone(why) => gone.push(format!("{why:#}")),
                Told::Said(_) => {}
            })?;
            stage.progress.tick(Instant::now());
            if swarm.open() == 0 {
                break;
            }
        }
        lost(round, "while they sent heartbeats", &gone);
        Ok(())
    }

    /// Waits for the echoes of what was sent.
    fn drain(&self, swarm: &mut Swarm, beats: &mut Beats, round: &mut Round) -> Result<()> {
        let end = Instant::now() + DRAIN;
        let latencies = std::mem::take(&mut beats.latencies);
        while beats.sent.iter().any(|sent| !sent.is_empty()) && swarm.open() > 0 {
            if Instant::now() > end {
                let missing: usize = beats.sent.iter().map(VecDeque::len).sum();
                round.problem(format!("{missing} heartbeats were not echoed"));
                break;
            }
            swarm.turn(end, |index, at, told| {
                if matches!(told, Told::Said(Seen::Heartbeat)) {
                    beats.echo(index, at);
                }
            })?;
        }
        beats.latencies = latencies;
        Ok(())
    }
}

impl Beats {
    fn waiting(&self, index: u32) -> usize {
        usize::try_from(index).ok().and_then(|place| self.sent.get(place)).map_or(0, VecDeque::len)
    }

    fn send(&mut self, swarm: &mut Swarm, index: u32, due: Instant, count: usize) -> Result<()> {
        if let Some(sent) = self.sent.get_mut(usize::try_from(index)?) {
            sent.extend(std::iter::repeat_n(due, count));
        }
        let one = frame::HEARTBEAT;
        if count == 1 { swarm.send(index, &one) } else { swarm.send(index, &one.repeat(count)) }
    }

    fn echo(&mut self, index: u32, at: Instant) -> Option<Duration> {
        let sent = usize::try_from(index).ok().and_then(|place| self.sent.get_mut(place))?;
        let Some(due) = sent.pop_front() else {
            self.surplus += 1;
            return None;
        };
        let latency = at.saturating_duration_since(due);
        self.echoed += 1;
        self.latencies.record(latency);
        Some(latency)
    }
}
