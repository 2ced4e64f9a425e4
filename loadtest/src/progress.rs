//! What happens now, each second: a line for eyes, a point for charts.

use std::time::{Duration, Instant};

use crate::latency::Latencies;
use crate::numbers::{float, micros, thousands};
use crate::process::Processes;

const EVERY: Duration = Duration::from_secs(1);

/// What happens while connections are opened that are not measured
/// themselves.
pub(crate) const OPENED: &str = "opened";

/// One second of a run.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// What happened …
    pub(crate) what: &'static str,
    /// … so often per second.
    pub(crate) rate: f64,
    /// Microseconds; 0 = nothing was measured.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    /// Cores the server kept busy.
    pub(crate) cores: f64,
    /// Anonymous resident memory of the server, bytes.
    pub(crate) memory: u64,
}

/// Counts what is told to it, and says so once a second.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    is_quiet: bool,
    side: &'static str,
    processes: Processes,
    what: &'static str,
    since: Instant,
    cpu: Duration,
    count: u64,
    latencies: Latencies,
    points: Vec<(&'static str, Point)>,
}

impl Progress {
    /// Of a run that begins now.
    pub(crate) fn new(is_quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            is_quiet,
            side: "",
            processes: Processes::default(),
            what: "",
            since: now,
            cpu: Duration::ZERO,
            count: 0,
            latencies: Latencies::default(),
            points: Vec::new(),
        }
    }

    /// From here on, `what` happens at the processes of `side`.
    pub(crate) fn begin(&mut self, side: &'static str, processes: &Processes, what: &'static str) {
        (self.side, self.what) = (side, what);
        self.processes = processes.clone();
        self.cpu = processes.cpu();
        self.since = Instant::now();
        self.count = 0;
        self.latencies.clear();
    }

    /// So many more.
    pub(crate) const fn count(&mut self, more: u64) {
        self.count += more;
    }

    /// One more, that took so long.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.count += 1;
        self.latencies.record(latency);
    }

    /// To be called often: once a second it does something.
    pub(crate) fn tick(&mut self, now: Instant) {
        let wall = now.saturating_duration_since(self.since);
        if wall < EVERY {
            return;
        }
        let cpu = self.processes.cpu();
        let point = Point {
            at: (now - self.start).as_secs_f64(),
            what: self.what,
            rate: float(self.count) / wall.as_secs_f64(),
            p50: self.latencies.at(0.5),
            p99: self.latencies.at(0.99),
            cores: cpu.saturating_sub(self.cpu).as_secs_f64() / wall.as_secs_f64(),
            memory: self.processes.memory(),
        };
        if !self.is_quiet {
            let latency = match self.latencies.count() {
                0 => String::new(),
                _ => format!("  p50 {}  p99 {}", micros(point.p50), micros(point.p99)),
            };
            eprintln!(
                "{:>5.0} s  {:<9}{:>12} {}/s{latency}  {:.2} cores  {:.1} MiB",
                point.at,
                self.side,
                thousands(point.rate),
                self.what,
                point.cores,
                float(point.memory) / 1_048_576.0
            );
        }
        self.points.push((self.side, point));
        self.begin_second(now, cpu);
    }

    /// Says something in between.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_quiet {
            eprintln!("{text}");
        }
    }

    /// All seconds, with the side each is of.
    pub(crate) fn into_points(self) -> Vec<(&'static str, Point)> {
        self.points
    }

    fn begin_second(&mut self, now: Instant, cpu: Duration) {
        self.since = now;
        self.cpu = cpu;
        self.count = 0;
        self.latencies.clear();
    }
}
