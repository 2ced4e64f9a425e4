//! What is counted of copies outside, where there are any.

use metrics::{Counter, Gauge};

use super::{counter, labelled_gauge};

/// The cached handles.
#[derive(Debug)]
#[allow(missing_docs)] // Each is described where it is registered, below.
pub(crate) struct SinkMetrics {
    pub copied: Counter,
    pub set_apart: Counter,
    pub errors: Counter,
    pub gaps: Counter,
    pub lag: Gauge,
}

impl SinkMetrics {
    /// Of the PostgreSQL that is configured.
    pub(crate) fn postgres() -> Self {
        Self {
            copied: counter(
                "tidegate_postgres_copied_total",
                "Entries of the log copied to PostgreSQL from here.",
            ),
            set_apart: counter(
                "tidegate_postgres_set_apart_total",
                "Properties that PostgreSQL does not take as jsonb, kept as text.",
            ),
            errors: counter(
                "tidegate_postgres_errors_total",
                "Times that copying to PostgreSQL could not go on.",
            ),
            gaps: counter(
                "tidegate_postgres_gaps_total",
                "Times that entries had left the log before they were copied.",
            ),
            lag: labelled_gauge(
                "tidegate_analytics_sink_lag_seconds",
                "Age of the oldest entry that a sink lacks.",
                "sink",
                "postgres",
            ),
        }
    }
}
