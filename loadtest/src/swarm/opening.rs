//! Many clients opened at once, as fast as they come or at a rate.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use super::{Swarm, Told};
use crate::latency::Latencies;
use crate::scan::Seen;
use crate::target::Targets;

/// How long a connection may take to be served.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

/// Clients on their way in.
#[derive(Debug)]
pub(crate) struct Opening {
    waiting: std::vec::IntoIter<u32>,
    at_once: usize,
    every: Option<Duration>,
    due: Instant,
    begin: Instant,
    /// Begun and not served yet, by when each was due.
    begun: HashMap<u32, Instant>,
    opened: Opened,
}

/// What opening gave.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Clients served.
    pub(crate) served: u64,
    /// From the dial, or from when it was due, to `Ready`.
    pub(crate) latencies: Latencies,
    /// Clients that are not served.
    pub(crate) failed: u64,
    /// Why the first of them is not.
    pub(crate) failure: Option<Error>,
    /// All of it.
    pub(crate) took: Duration,
}

impl Opened {
    /// Everybody, or why one is missing.
    pub(crate) fn complete(self) -> Result<Self> {
        match self.failure {
            Some(error) => Err(error.context(format!("{} connections did not open", self.failed))),
            None => Ok(self),
        }
    }
}

impl Opening {
    /// Of `clients`, `at_once` on their way at a time, `rate` per second or as
    /// fast as they come.
    pub(crate) fn new(clients: Vec<u32>, at_once: u32, rate: Option<f64>) -> Self {
        let begin = Instant::now();
        Self {
            waiting: clients.into_iter(),
            at_once: usize::try_from(at_once).unwrap_or(usize::MAX),
            every: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            due: begin,
            begin,
            begun: HashMap::new(),
            opened: Opened::default(),
        }
    }

    /// Begins what is due; `request` gives a client's upgrade. Returns when
    /// to come again though nothing is told.
    pub(crate) fn step(
        &mut self,
        swarm: &mut Swarm,
        targets: &Targets,
        request: &mut impl FnMut(u32) -> Result<Vec<u8>>,
    ) -> Result<Instant> {
        let now = Instant::now();
        while self.begun.len() < self.at_once && self.due <= now {
            let Some(index) = self.waiting.next() else { break };
            let due = if let Some(every) = self.every {
                let due = self.due;
                self.due += every;
                due
            } else {
                Instant::now()
            };
            match swarm.connect(index, targets, &request(index)?) {
                Ok(()) => drop(self.begun.insert(index, due)),
                Err(error) => self.fail(error),
            }
        }
        self.begun.retain(|&index, due| {
            let late = now > *due + PATIENCE;
            if late {
                swarm.close(index);
                self.opened.failed += 1;
                self.opened.failure.get_or_insert_with(|| Error::msg("connecting took too long"));
            }
            !late
        });
        let soon = now + LOOK;
        Ok(if self.begun.len() < self.at_once { self.due.max(now).min(soon) } else { soon })
    }

    /// To be shown what every client is told; how long the client took that
    /// is served now.
    pub(crate) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) -> Option<Duration> {
        match told {
            Told::Said(Seen::Ready) => {
                let latency = at.saturating_duration_since(self.begun.remove(&index)?);
                self.opened.served += 1;
                self.opened.latencies.record(latency);
                Some(latency)
            }
            Told::Gone(error) => {
                self.begun.remove(&index)?;
                self.fail(Error::msg(format!("{error:#}")));
                None
            }
            Told::Said(_) => None,
        }
    }

    /// Whether everybody is in, or will not be.
    pub(crate) fn is_over(&self) -> bool {
        self.waiting.as_slice().is_empty() && self.begun.is_empty()
    }

    /// The figures.
    pub(crate) fn finish(mut self) -> Opened {
        self.opened.took = self.begin.elapsed();
        self.opened
    }

    /// Opens all of them; what else clients are told meanwhile is lost.
    pub(crate) fn run(
        mut self,
        swarm: &mut Swarm,
        targets: &Targets,
        mut request: impl FnMut(u32) -> Result<Vec<u8>>,
    ) -> Result<Opened> {
        let most = self.begin + Duration::from_secs(600);
        while !self.is_over() {
            let until = self.step(swarm, targets, &mut request)?;
            swarm.turn(until, |index, at, told| {
                self.told(index, at, &told);
            })?;
            if Instant::now() > most {
                bail!("opening took more than ten minutes");
            }
        }
        Ok(self.finish())
    }

    fn fail(&mut self, error: Error) {
        self.opened.failed += 1;
        self.opened.failure.get_or_insert(error);
    }
}
