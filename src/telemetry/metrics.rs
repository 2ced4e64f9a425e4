//! Every metric, once.

mod census;
#[cfg(feature = "postgres")]
mod sink;

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Unit};

use self::census::CensusMetrics;
#[cfg(feature = "postgres")]
pub(crate) use self::sink::SinkMetrics;
use super::labels::FrameKind;
use super::presence::PresenceMetrics;
use crate::types::CloseReason;

/// The cached handles.
#[derive(Debug)]
#[allow(missing_docs)] // Each is described where it is registered, below.
pub(crate) struct Metrics {
    pub connections: Gauge,
    pub users: Gauge,
    pub accepted: Counter,
    pub accept_errors: Counter,
    pub shed: Counter,
    pub closed: Vec<(CloseReason, Counter)>,
    pub handshake_ok: Counter,
    pub handshake_refused: Counter,
    pub handshake_unauthenticated: Counter,
    pub handshake_timeout: Counter,
    pub handshake_error: Counter,
    pub handshake_seconds: Histogram,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub frames_in: [Counter; 8],
    pub frames_out: [Counter; 8],
    pub route_bind: RouteMetrics,
    pub route_refresh: RouteMetrics,
    pub route_query: RouteMetrics,
    pub route_unbind: RouteMetrics,
    pub messages_received: Counter,
    pub messages_stored: Counter,
    pub messages_duplicate: Counter,
    pub refused_invalid: Counter,
    pub refused_forbidden: Counter,
    pub refused_retry_later: Counter,
    pub refused_queue_full: Counter,
    pub refused_internal: Counter,
    pub messages_in_flight: Gauge,
    pub epochs_raised: Counter,
    pub append_seconds: Histogram,
    pub store_commit_seconds: Histogram,
    pub store_commits: Counter,
    pub store_commit_messages: Counter,
    pub store_disk_errors: Counter,
    pub ack_level: Gauge,
    pub unconfirmed: Counter,
    pub retention_messages: Counter,
    pub retention_conversations: Counter,
    pub retention_rounds: Counter,
    pub census: CensusMetrics,
    pub deliveries_local: Counter,
    pub deliveries_remote: Counter,
    pub deliveries_offline: Counter,
    pub deliveries_lookup_failed: Counter,
    pub delivery_seconds: Histogram,
    pub copies_enqueued: Counter,
    pub copies_written: Counter,
    pub copies_queued: Gauge,
    pub copies_dropped_slow: Counter,
    pub copies_dropped_closed: Counter,
    pub copies_dropped_known: Counter,
    pub copies_replaced_by_hint: Counter,
    pub batched_frames: Counter,
    pub hint_slow_reader: Counter,
    pub hint_hot: Counter,
    pub hint_replay: Counter,
    pub hint_gap: Counter,
    pub resync_other_message: Counter,
    pub resync_beyond: Counter,
    pub resync_trimmed: Counter,
    pub holes: Counter,
    pub repairs_filled: Counter,
    pub repairs_hinted: Counter,
    pub repairs_failed: Counter,
    pub rooms: Gauge,
    pub room_reloads: Counter,
    pub pulls_store: Counter,
    pub pulls_tail: Counter,
    pub dropped_ephemeral: Counter,
    pub dropped_relay_full: Counter,
    pub dropped_report_full: Counter,
    pub dropped_bus_full: Counter,
    pub dropped_bus_error: Counter,
    pub dropped_membership_full: Counter,
    pub dropped_room_outdated: Counter,
    pub interests_forgotten: Counter,
    pub bus_published: Counter,
    pub bus_received: Counter,
    pub bus_ignored_foreign: Counter,
    pub bus_ignored_version: Counter,
    pub bus_ignored_broken: Counter,
    pub bus_gaps: Counter,
    pub bus_lag_seconds: Histogram,
    pub reconcile_hole: Counter,
    pub reconcile_new_source: Counter,
    pub reconcile_resubscribed: Counter,
    pub reconcile_lease: Counter,
    pub reconciled: Counter,
    pub presence: PresenceMetrics,
    pub redis_up: Gauge,
    pub redis_reconnects: Counter,
    pub redis_commands: Counter,
    pub redis_errors: Counter,
    pub lease_lost: Counter,
    pub rebinds: Counter,
    pub drained: Counter,
    pub handovers_done: Counter,
    pub handovers_failed: Counter,
    pub handover_moved: Counter,
    pub handover_mid_frame: Counter,
    pub handover_with_unsent: Counter,
    pub handover_pause_seconds: Histogram,
}

/// The metrics of one route operation.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    /// It did what was asked.
    pub ok: Counter,
    /// A newer bind holds the device, or the unbind was not ours to do.
    pub refused: Counter,
    /// The backend failed.
    pub error: Counter,
    /// How long it took.
    pub seconds: Histogram,
}

/// The handles. Before [`super::install_metrics`] has run they count into nothing.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::register)
}

/// Goes on with what a counter stood at in the process before this one.
pub(crate) fn carry_counter(name: String, labels: &[(String, String)], value: u64) {
    metrics::counter!(name, labels).increment(value);
}

pub(super) fn counter(name: &'static str, help: &'static str) -> Counter {
    metrics::describe_counter!(name, help);
    metrics::counter!(name)
}

pub(super) fn labelled(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    value: &'static str,
) -> Counter {
    metrics::describe_counter!(name, help);
    metrics::counter!(name, label => value)
}

pub(super) fn gauge(name: &'static str, help: &'static str) -> Gauge {
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name)
}

fn labelled_gauge(name: &'static str, help: &'static str, label: &'static str, value: &'static str) -> Gauge {
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name, label => value)
}

pub(super) fn seconds(name: &'static str, help: &'static str) -> Histogram {
    metrics::describe_histogram!(name, Unit::Seconds, help);
    metrics::histogram!(name)
}

fn route(operation: &'static str) -> RouteMetrics {
    const TOTAL: &str = "tidegate_route_operations_total";
    const SECONDS: &str = "tidegate_route_operation_duration_seconds";
    metrics::describe_counter!(TOTAL, "Route operations by operation and result.");
    metrics::describe_histogram!(SECONDS, Unit::Seconds, "Duration of route operations.");
    let total = |result: &'static str| metrics::counter!(TOTAL, "operation" => operation, "result" => result);
    RouteMetrics {
        ok: total("ok"),
        refused: total("refused"),
        error: total("error"),
        seconds: metrics::histogram!(SECONDS, "operation" => operation),
    }
}

fn frames(direction: &'static str) -> [Counter; 8] {
    const NAME: &str = "tidegate_frames_total";
    metrics::describe_counter!(NAME, "Frames by direction and kind.");
    FrameKind::LABELS.map(|kind| metrics::counter!(NAME, "direction" => direction, "kind" => kind))
}

impl Metrics {
    fn register() -> Self {
        metrics::describe_gauge!("tidegate_build_info", "Always 1; the labels name the build.");
        metrics::gauge!("tidegate_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => env!("TIDEGATE_COMMIT"))
            .set(1.0);
        let closed = |reason: CloseReason| {
            let help = "Connections ended, by reason.";
            (reason, labelled("tidegate_connections_closed_total", help, "reason", reason.row().label))
        };
        let handshake = |r| labelled("tidegate_handshakes_total", "Handshakes by result.", "result", r);
        let bytes = |d| labelled("tidegate_bytes_total", "Socket bytes by direction.", "direction", d);
        let refused = |r| {
            let help = "Messages refused, by reason.";
            labelled("tidegate_messages_refused_total", help, "reason", r)
        };
        let deliveries = |r| {
            let help = "Deliveries by result: one per recipient and place.";
            labelled("tidegate_deliveries_total", help, "result", r)
        };
        let copies_dropped = |r| {
            let help = "Copies of stored messages not written, by reason.";
            labelled("tidegate_copies_dropped_total", help, "reason", r)
        };
        let hints = |c| {
            let help = "Clients told to pull a conversation, by cause.";
            labelled("tidegate_conversation_hints_total", help, "cause", c)
        };
        let resyncs = |r| {
            let help = "Clients told that what they have is not of the history that is here, by reason.";
            labelled("tidegate_resyncs_total", help, "reason", r)
        };
        let repairs = |r| {
            let help = "Reads of the log to fill a hole, by result.";
            labelled("tidegate_repairs_total", help, "result", r)
        };
        let pulls = |s| {
            let help = "Ranges that clients pulled, by where they were read.";
            labelled("tidegate_pulls_total", help, "source", s)
        };
        let dropped = |r| {
            let help = "Things dropped that were never promised, by reason.";
            labelled("tidegate_dropped_total", help, "reason", r)
        };
        let ignored =
            |r| labelled("tidegate_bus_ignored_total", "Bus messages ignored, by reason.", "reason", r);
        let reconcile = |c| {
            let help = "Times messages for this gateway may have been lost, by cause.";
            labelled("tidegate_reconciliations_total", help, "cause", c)
        };
        let handovers = |r| labelled("tidegate_handovers_total", "Hot restarts by result.", "result", r);
        let moved = |s| {
            let help = "Connections taken over in hot restarts, by the state they were in.";
            labelled("tidegate_handover_connections_total", help, "state", s)
        };
        Self {
            connections: gauge("tidegate_connections", "Live connections."),
            users: gauge("tidegate_users", "Users with at least one live connection here."),
            accepted: counter("tidegate_connections_accepted_total", "Sockets accepted."),
            accept_errors: counter("tidegate_accept_errors_total", "Failed accepts, such as EMFILE."),
            shed: counter("tidegate_connections_shed_total", "Sockets refused because the gateway is full."),
            closed: CloseReason::ALL.map(closed).into(),
            handshake_ok: handshake("ok"),
            handshake_refused: handshake("refused"),
            handshake_unauthenticated: handshake("unauthenticated"),
            handshake_timeout: handshake("timeout"),
            handshake_error: handshake("error"),
            handshake_seconds: seconds("tidegate_handshake_duration_seconds", "From accept to Ready."),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            frames_in: frames("in"),
            frames_out: frames("out"),
            route_bind: route("bind"),
            route_refresh: route("refresh"),
            route_query: route("query"),
            route_unbind: route("unbind"),
            messages_received: counter("tidegate_messages_received_total", "SendMessageReq received."),
            messages_stored: counter("tidegate_messages_stored_total", "Messages stored."),
            messages_duplicate: counter("tidegate_messages_duplicate_total", "Sends answered as duplicates."),
            refused_invalid: refused("invalid"),
            refused_forbidden: refused("forbidden"),
            refused_retry_later: refused("retry_later"),
            refused_queue_full: refused("queue_full"),
            refused_internal: refused("internal"),
            messages_in_flight: gauge("tidegate_messages_in_flight", "Sends waiting for the store."),
            epochs_raised: counter(
                "tidegate_conversation_epochs_raised_total",
                "Conversations whose history may have lost messages.",
            ),
            append_seconds: seconds(
                "tidegate_store_append_duration_seconds",
                "Duration of one batch of appends.",
            ),
            store_commit_seconds: seconds(
                "tidegate_store_commit_duration_seconds",
                "Write and sync of one commit.",
            ),
            store_commits: counter("tidegate_store_commits_total", "Commits of the embedded store."),
            store_commit_messages: counter(
                "tidegate_store_commit_messages_total",
                "Messages in these commits.",
            ),
            store_disk_errors: counter(
                "tidegate_store_disk_errors_total",
                "Failures of the embedded store's disk.",
            ),
            ack_level: gauge("tidegate_ack_level", "Level at which sends are acknowledged: 1, 2 or 3."),
            unconfirmed: counter("tidegate_store_unconfirmed_total", "Batches whose level is not confirmed."),
            retention_messages: counter(
                "tidegate_retention_messages_total",
                "Messages removed, past their time.",
            ),
            retention_conversations: counter(
                "tidegate_retention_conversations_total",
                "Conversations looked at for such messages.",
            ),
            retention_rounds: counter(
                "tidegate_retention_rounds_total",
                "Complete rounds through all conversations.",
            ),
            census: CensusMetrics::register(),
            deliveries_local: deliveries("local"),
            deliveries_remote: deliveries("remote"),
            deliveries_offline: deliveries("offline"),
            deliveries_lookup_failed: deliveries("lookup_failed"),
            delivery_seconds: seconds(
                "tidegate_delivery_duration_seconds",
                "From receipt of a send to its hand-over to sockets and bus.",
            ),
            copies_enqueued: counter(
                "tidegate_copies_enqueued_total",
                "Copies of stored messages queued for a connection.",
            ),
            copies_written: counter(
                "tidegate_copies_written_total",
                "Copies of stored messages written to a socket.",
            ),
            copies_queued: gauge("tidegate_copies_queued", "Copies of stored messages in outboxes."),
            copies_dropped_slow: copies_dropped("slow_consumer"),
            copies_dropped_closed: copies_dropped("closed"),
            copies_dropped_known: copies_dropped("known"),
            copies_replaced_by_hint: counter(
                "tidegate_copies_replaced_by_hint_total",
                "Copies of stored messages that made way for a hint to pull.",
            ),
            batched_frames: counter(
                "tidegate_outbox_batched_frames_total",
                "Frames that shared a write with others.",
            ),
            hint_slow_reader: hints("slow_reader"),
            hint_hot: hints("hot"),
            hint_replay: hints("replay"),
            hint_gap: hints("gap"),
            resync_other_message: resyncs("other_message"),
            resync_beyond: resyncs("beyond_top"),
            resync_trimmed: resyncs("trimmed"),
            holes: counter(
                "tidegate_delivery_holes_total",
                "Holes that deliveries to connections here have shown.",
            ),
            repairs_filled: repairs("filled"),
            repairs_hinted: repairs("hinted"),
            repairs_failed: repairs("failed"),
            rooms: gauge("tidegate_groups", "Groups with a member online here, or lately."),
            room_reloads: counter(
                "tidegate_group_reloads_total",
                "Member sets read again because the group had changed.",
            ),
            pulls_store: pulls("store"),
            pulls_tail: pulls("tail"),
            dropped_ephemeral: dropped("ephemeral_slow_reader"),
            dropped_relay_full: dropped("relay_queue_full"),
            dropped_report_full: dropped("report_queue_full"),
            dropped_bus_full: dropped("bus_queue_full"),
            dropped_bus_error: dropped("bus_publish_failed"),
            dropped_membership_full: dropped("membership_queue_full"),
            dropped_room_outdated: dropped("group_outdated"),
            interests_forgotten: counter(
                "tidegate_group_interests_forgotten_total",
                "Interests of dead gateways that were taken back.",
            ),
            bus_published: labelled(
                "tidegate_bus_messages_total",
                "Bus messages by direction.",
                "direction",
                "out",
            ),
            bus_received: labelled(
                "tidegate_bus_messages_total",
                "Bus messages by direction.",
                "direction",
                "in",
            ),
            bus_ignored_foreign: ignored("other_gateway"),
            bus_ignored_version: ignored("version"),
            bus_ignored_broken: ignored("broken"),
            bus_gaps: counter("tidegate_bus_gaps_total", "Holes seen in a source's counter."),
            bus_lag_seconds: seconds(
                "tidegate_bus_lag_seconds",
                "From publish to receipt, by the two clocks.",
            ),
            reconcile_hole: reconcile("hole"),
            reconcile_new_source: reconcile("new_source"),
            reconcile_resubscribed: reconcile("resubscribed"),
            reconcile_lease: reconcile("lease"),
            reconciled: counter(
                "tidegate_reconciled_conversations_total",
                "Conversations looked at for what was lost.",
            ),
            presence: PresenceMetrics::register(),
            redis_up: gauge("tidegate_redis_up", "1 while Redis answers and the channel is subscribed."),
            redis_reconnects: counter(
                "tidegate_redis_reconnects_total",
                "Connections to Redis established again.",
            ),
            redis_commands: counter("tidegate_redis_commands_total", "Commands sent to Redis."),
            redis_errors: counter("tidegate_redis_errors_total", "Round trips to Redis that failed."),
            lease_lost: counter("tidegate_lease_lost_total", "Times the own lease was found gone."),
            drained: counter(
                "tidegate_connections_drained_total",
                "Clients asked to connect elsewhere or again.",
            ),
            handovers_done: handovers("done"),
            handovers_failed: handovers("failed"),
            handover_moved: moved("all"),
            handover_mid_frame: moved("mid_frame"),
            handover_with_unsent: moved("with_unsent"),
            handover_pause_seconds: seconds(
                "tidegate_handover_pause_seconds",
                "For how long a hot restart kept clients waiting.",
            ),
            rebinds: counter("tidegate_route_rebinds_total", "Routes bound again after an outage."),
        }
    }

    /// Counts refused credentials by cause, one of a fixed set of words.
    pub(crate) fn count_auth_failure(&self, cause: &'static str) {
        const NAME: &str = "tidegate_auth_failures_total";
        labelled(NAME, "Refused credentials by cause.", "reason", cause).increment(1);
    }
}
