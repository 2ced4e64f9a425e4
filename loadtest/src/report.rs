//! Figures for eyes and programs.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use crate::server::Cost;

const DIGITS: u8 = 2;
/// Longer ones count as this: every wait here ends sooner.
const LONGEST_US: u64 = 60_000_000;

/// Named figures, in the order they were added; a name ends in its unit.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<(String, Value)>,
    bad: bool,
}

impl Report {
    /// Of a scenario.
    pub(crate) fn new(scenario: &str) -> Self {
        let mut report = Self::default();
        report.add("scenario", scenario);
        report
    }

    /// Adds one figure.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Adds one figure, rounded to what can be told apart.
    pub(crate) fn add_rounded(&mut self, name: &str, value: f64) {
        self.add(name, (value * 100.0).round() / 100.0);
    }

    /// Adds a count and its rate over `within`.
    pub(crate) fn add_rate(&mut self, name: &str, count: u64, within: Duration) {
        self.add(name, count);
        self.add_rounded(&format!("{name}PerSecond"), float(count) / within.as_secs_f64());
    }

    /// Adds what `count` of a thing cost the server, and how busy it was.
    pub(crate) fn add_cost(&mut self, thing: &str, cost: Cost, count: u64) {
        self.add_rounded(
            &format!("serverCpuUsPer{thing}"),
            cost.cpu.as_secs_f64() * 1e6 / float(count.max(1)),
        );
        self.add_rounded("serverCores", cost.cores());
    }

    /// Adds median, 99th percentile and maximum.
    pub(crate) fn add_latencies(&mut self, name: &str, latencies: &Latencies) {
        for (point, quantile) in [("P50", 0.5), ("P99", 0.99), ("Max", 1.0)] {
            self.add(&format!("{name}{point}Us"), latencies.at(quantile));
        }
    }

    /// Marks the run as failed.
    pub(crate) fn fail(&mut self, why: impl Into<Value>) {
        self.bad = true;
        self.add("failed", why);
    }

    /// Whether nothing failed.
    pub(crate) const fn is_good(&self) -> bool {
        !self.bad
    }

    /// One object.
    pub(crate) fn to_json(&self) -> Value {
        let figures: Map<String, Value> = self.figures.iter().cloned().collect();
        Value::Object(figures)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.figures {
            writeln!(f, "{name:<28} {value}")?;
        }
        Ok(())
    }
}

/// Durations to two digits; empty ones cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    /// Takes one down.
    pub(crate) fn record(&mut self, latency: Duration) {
        if self.0.is_none() {
            self.0 = Histogram::new_with_max(LONGEST_US, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Takes over those of another.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        match (&mut self.0, &other.0) {
            (Some(own), Some(other)) => own.add(other)?,
            (own @ None, Some(other)) => *own = Some(other.clone()),
            (_, None) => {}
        }
        Ok(())
    }

    /// Microseconds; 0 when nothing was taken down.
    fn at(&self, quantile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }
}

/// Exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    let part = |bits: u64| f64::from(u32::try_from(bits).unwrap_or(u32::MAX));
    part(count >> 32) * 4_294_967_296.0 + part(count & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_all_sizes_are_told_apart() {
        let mut latencies = Latencies::default();
        for ms in [1, 1, 1_000] {
            latencies.record(Duration::from_millis(ms));
        }
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) <= wanted / 100;
        assert!(near(latencies.at(0.5), 1_000));
        assert!(near(latencies.at(1.0), 1_000_000));
    }
}
