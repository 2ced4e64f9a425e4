//! How long things took.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

const DIGITS: u8 = 3;
/// Longer ones count as this: every wait here ends sooner.
const LONGEST_US: u64 = 600_000_000;
/// Points of a percentile curve.
const CURVE: [f64; 13] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

/// Durations, each from when it was due, so that a server that stalls is
/// charged for what it delayed. Empty ones cost nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies(Option<Box<Histogram<u64>>>);

impl Latencies {
    /// Takes one down.
    pub(crate) fn record(&mut self, latency: Duration) {
        if self.0.is_none() {
            self.0 = Histogram::new_with_max(LONGEST_US, DIGITS).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Takes over those of another.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        match (&mut self.0, &other.0) {
            (Some(own), Some(other)) => own.add(&**other)?,
            (own @ None, Some(other)) => *own = Some(other.clone()),
            (_, None) => {}
        }
        Ok(())
    }

    /// How many were taken down.
    pub(crate) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// Microseconds; 0 when nothing was taken down.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }

    /// Percentile and microseconds, ascending.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        CURVE.map(|percentile| (percentile, self.at(percentile / 100.0))).into()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        if let Some(histogram) = &mut self.0 {
            histogram.reset();
        }
    }
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
        assert_eq!(latencies.curve().len(), CURVE.len());
    }
}
