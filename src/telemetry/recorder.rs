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

    /// Drains histogram samples into buckets; without it they pile up.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
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
