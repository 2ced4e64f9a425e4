//! The Prometheus side of the metrics.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Renders `/metrics`; must be asked to drain histograms every few seconds.
#[derive(Clone)]
pub(crate) struct Recorder(PrometheusHandle);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// The exposition text.
    #[must_use]
    pub(crate) fn render(&self) -> String {
        self.0.render()
    }

    /// What every counter stands at.
    #[must_use]
    pub(crate) fn counters(&self) -> Vec<CarriedCounter> {
        counters(&self.render())
    }

    /// Drains histogram samples into buckets; without it they pile up.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// A counter: its name, its labels and where it stands.
pub(crate) type CarriedCounter = (String, Vec<(String, String)>, u64);

fn counters(exposition: &str) -> Vec<CarriedCounter> {
    let mut counters = Vec::new();
    let mut is_counter = false;
    for line in exposition.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            is_counter = kind.ends_with(" counter");
        } else if is_counter && !line.starts_with('#') {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = match series.trim_end_matches('}').split_once('{') {
                Some((name, labels)) => (name, labels),
                None => (series, ""),
            };
            let labels = labels.split(',').filter_map(|label| {
                let (name, value) = label.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            });
            match value.parse() {
                Ok(value) if value > 0 => counters.push((name.to_owned(), labels.collect(), value)),
                _ => {}
            }
        }
    }
    counters
}

const BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// Installs the Prometheus recorder for this process and returns it; a second
/// call returns the same one.
pub(crate) fn install_metrics() -> Result<Recorder, String> {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    if let Some(recorder) = RECORDER.get() {
        return Ok(recorder.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| format!("metrics recorder: {error}"))?;
    Ok(RECORDER.get_or_init(|| Recorder(handle)).clone())
}

#[cfg(test)]
mod tests {
    use super::counters;

    #[test]
    fn counters_are_read_back_and_nothing_else() {
        let text = "# HELP a A.\n# TYPE a counter\na 3\n\n# TYPE b gauge\nb 4\n# TYPE c counter\n\
                    c{x=\"1\",y=\"z\"} 5\nc{x=\"2\",y=\"z\"} 0\n";
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [("a".to_owned(), vec![], 3), ("c".to_owned(), vec![label("x", "1"), label("y", "z")], 5)];
        assert_eq!(counters(text), expected);
    }
}
