//! The metrics of presence.

use metrics::{Counter, Gauge, Histogram};

use super::metrics::{counter, gauge, labelled, seconds};

/// The cached handles.
#[derive(Debug)]
#[allow(missing_docs)] // Each is described where it is registered, below.
pub(crate) struct PresenceMetrics {
    pub online: Gauge,
    pub watched: Gauge,
    pub heartbeats: Counter,
    pub sighted_connection: Counter,
    pub sighted_http: Counter,
    pub flush_seconds: Histogram,
    pub errors: Counter,
    pub came: Counter,
    pub went: Counter,
    pub events: Counter,
    pub refused: Counter,
    pub dropped_slow: Counter,
    pub dropped_full: Counter,
}

impl PresenceMetrics {
    pub(super) fn register() -> Self {
        let changes = |s| {
            let help = "Users that came online or went offline, as this gateway was told first.";
            labelled("tidegate_presence_changes_total", help, "state", s)
        };
        let sighted = |w| {
            let help = "Times somebody said that it is there, by the way it came.";
            labelled("tidegate_presence_sightings_total", help, "way", w)
        };
        let dropped = |r| {
            let help = "Presence not told, by reason.";
            labelled("tidegate_presence_dropped_total", help, "reason", r)
        };
        Self {
            online: gauge("tidegate_presence_users", "Users online, of all gateways."),
            watched: gauge("tidegate_presence_watched_users", "Users that connections here watch."),
            heartbeats: counter(
                "tidegate_presence_heartbeats_total",
                "Users said to have been heard: each at most once a second.",
            ),
            sighted_connection: sighted("connection"),
            sighted_http: sighted("http"),
            flush_seconds: seconds(
                "tidegate_presence_flush_duration_seconds",
                "Duration of one round of presence.",
            ),
            errors: counter("tidegate_presence_errors_total", "Rounds of presence that failed."),
            came: changes("online"),
            went: changes("offline"),
            events: counter("tidegate_presence_events_total", "Changes queued for connections that watch."),
            refused: counter(
                "tidegate_presence_refused_total",
                "Requests to watch that were refused, in part or whole.",
            ),
            dropped_slow: dropped("slow_reader"),
            dropped_full: dropped("queue_full"),
        }
    }
}
