//! What is counted of who comes.

use metrics::{Counter, Gauge, Histogram};

use super::super::labels::EventRefusal;
use super::{counter, gauge, labelled, labelled_gauge, seconds};

/// The cached handles.
#[derive(Debug)]
#[allow(missing_docs)] // Each is described where it is registered, below.
pub(crate) struct CensusMetrics {
    pub events_accepted: Counter,
    pub events_duplicate: Counter,
    events_refused: [Counter; 10],
    pub recorded: Counter,
    pub dropped_queue: Counter,
    pub dropped_people: Counter,
    pub dropped_places: Counter,
    pub dropped_broken: Counter,
    pub flush_seconds: Histogram,
    pub samples: Counter,
    pub samples_refused: Counter,
    pub samples_unavailable: Counter,
    pub trimmed: Counter,
    pub sink_lag_store: Gauge,
    pub daily_users: Gauge,
}

impl CensusMetrics {
    pub(super) fn register() -> Self {
        let events = |r| {
            let help = "Events that were good, by result.";
            labelled("tidegate_analytics_events_total", help, "result", r)
        };
        let refused = |r| {
            let help = "Events refused, by what is wrong with them.";
            labelled("tidegate_analytics_events_refused_total", help, "reason", r)
        };
        let dropped = |r| {
            let help = "What is missing in the daily numbers, or in the log behind them, by reason.";
            labelled("tidegate_daily_dropped_total", help, "reason", r)
        };
        let missed = |r| {
            let help = "Samples of the online numbers not kept, by reason; unavailable: instants at which this gateway could not ask the store, or was refused, whoever's turn it was.";
            labelled("tidegate_presence_samples_missed_total", help, "reason", r)
        };
        Self {
            events_accepted: events("accepted"),
            events_duplicate: events("duplicate"),
            events_refused: EventRefusal::LABELS.map(refused),
            recorded: counter(
                "tidegate_daily_recorded_total",
                "People seen here for the first time on a day, and now in the log.",
            ),
            dropped_queue: dropped("queue_full"),
            dropped_people: dropped("people_full"),
            dropped_places: dropped("places_full"),
            dropped_broken: dropped("broken"),
            flush_seconds: seconds(
                "tidegate_daily_flush_duration_seconds",
                "One batch of people seen, into the log.",
            ),
            samples: counter("tidegate_presence_samples_total", "Samples of the online numbers taken here."),
            samples_refused: missed("refused"),
            samples_unavailable: missed("unavailable"),
            trimmed: counter(
                "tidegate_analytics_trimmed_total",
                "Entries of the log removed, past their time.",
            ),
            sink_lag_store: labelled_gauge(
                "tidegate_analytics_sink_lag_seconds",
                "Age of the oldest entry that a sink lacks.",
                "sink",
                "store",
            ),
            daily_users: gauge(
                "tidegate_daily_users",
                "People of today on all gateways, as of the last minute.",
            ),
        }
    }

    /// Counts events that were refused.
    pub(crate) fn refused(&self, why: EventRefusal, events: u64) {
        if let Some(counter) = self.events_refused.get(why.index()) {
            counter.increment(events);
        }
    }
}
