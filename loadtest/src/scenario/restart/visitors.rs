//! New connections all the time: none may be refused or reset because the
//! process is being replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Stage;
use crate::frame::HEARTBEAT;
use crate::latency::Latencies;
use crate::numbers::float;
use crate::round::Round;
use crate::scan::Seen;
use crate::swarm::{Opening, Swarm, Told};

/// Users of the visitors begin this far behind the others'.
const APART: u64 = 500_000;
/// Visitors of one wave.
const WAVE: u32 = 10;
/// How long an echo may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread of visitors.
pub(super) struct Visitors {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Stay>>,
}

/// What they saw.
#[derive(Default)]
struct Stay {
    visits: u64,
    opened: Latencies,
    problems: Vec<String>,
}

impl Visitors {
    /// `rate` of them per second.
    pub(super) fn start(stage: &Stage<'_>, rate: f64) -> Result<Self> {
        let targets = stage.side.targets.clone();
        let first_user = stage.first_user + APART;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut swarm = Swarm::new()?;
        let thread = std::thread::spawn(move || {
            let mut seen = Stay::default();
            while !stopped.load(Ordering::Relaxed) {
                // Each time somebody else: who comes back replaces himself.
                let first = first_user + seen.visits % 100_000;
                let request = |index: u32| {
                    Ok(targets.request(index, first + u64::from(index), None, false)?.into_bytes())
                };
                let opening = Opening::new((0..WAVE).collect(), WAVE, Some(rate));
                let opened = opening.run(&mut swarm, &targets, request)?;
                seen.opened.add(&opened.latencies)?;
                if let Some(why) = opened.failure {
                    seen.problems.push(format!("{} of {WAVE} connects failed: {why:#}", opened.failed));
                }
                let lost = seen.talk(&mut swarm)?;
                seen.problems.extend(lost);
                swarm.clear();
            }
            Ok(seen)
        });
        Ok(Self { stop, thread })
    }

    /// Ends; adds what they saw.
    pub(super) fn finish(self, round: &mut Round) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().map_err(|_| anyhow!("the visitors"))??;
        round.add("visits", float(seen.visits));
        round.add_latencies("visit", seen.opened);
        if let Some(first) = seen.problems.first() {
            round.problem(format!("{} times visitors were turned away: {first}", seen.problems.len()));
        }
        if seen.visits == 0 {
            round.problem("nobody visited");
        }
        Ok(())
    }
}

impl Stay {
    /// A heartbeat of each, and its echo; why one was cut off.
    fn talk(&mut self, swarm: &mut Swarm) -> Result<Option<String>> {
        let wanted = swarm.open();
        (0..WAVE).try_for_each(|index| swarm.send(index, &HEARTBEAT))?;
        let (mut echoed, mut gone) = (0, None);
        let end = Instant::now() + PATIENCE;
        while echoed < wanted && gone.is_none() && Instant::now() < end {
            swarm.turn(end, |_, _, told| match told {
                Told::Said(Seen::Heartbeat) => echoed += 1,
                Told::Gone(why) => gone = Some(format!("{why:#}")),
                Told::Said(_) => {}
            })?;
        }
        self.visits += u64::try_from(echoed)?;
        if gone.is_none() && echoed < wanted {
            gone = Some(format!("{} echoes never came", wanted - echoed));
        }
        Ok(gone)
    }
}
