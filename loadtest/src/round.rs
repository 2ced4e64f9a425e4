//! What one round of a scenario measured on one side.

use crate::history::Verdict;
use crate::latency::Latencies;
use crate::numbers::float;
use crate::process::Cost;

/// Figures by name; a name ends in its unit.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) figures: Vec<(String, f64)>,
    pub(crate) latencies: Vec<(String, Latencies)>,
    /// What the server should not have done.
    pub(crate) problems: Vec<String>,
    /// What the history checker says.
    pub(crate) verdict: Option<Verdict>,
}

impl Round {
    /// Adds one figure.
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    /// Adds a histogram, and its median, 99th percentile and maximum in
    /// microseconds.
    pub(crate) fn add_latencies(&mut self, name: &str, latencies: Latencies) {
        for (point, quantile) in [("P50", 0.5), ("P99", 0.99), ("Max", 1.0)] {
            self.add(&format!("{name}{point}Us"), float(latencies.at(quantile)));
        }
        self.latencies.push((name.to_owned(), latencies));
    }

    /// Adds what `count` of a thing cost the server, and how busy it was.
    pub(crate) fn add_cost(&mut self, thing: &str, cost: &Cost, count: u64) {
        let per = |value: f64| value / float(count.max(1));
        self.add(&format!("cpuUsPer{thing}"), per(cost.cpu.as_secs_f64() * 1e6));
        self.add("serverCores", cost.cores());
        let ticks = (cost.user + cost.system).as_secs_f64().max(1e-9);
        self.add("serverSystemShare", cost.system.as_secs_f64() / ticks);
        self.add(&format!("switchesPer{thing}"), per(float(cost.switches)));
        self.add(&format!("readWriteCallsPer{thing}"), per(float(cost.calls)));
        let total = cost.cpu.as_secs_f64().max(1e-9);
        self.add("busiestThreadShare", cost.threads.first().map_or(0.0, |most| most.as_secs_f64() / total));
    }

    /// Something is wrong.
    pub(crate) fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }
}
