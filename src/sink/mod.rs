//! Copies of the log of events, of the daily numbers and of the online ones
//! in databases outside.
//!
//! Owns one task per sink. Promises: every entry is there at least once tried
//! and exactly once kept; what a database does not take now waits in the log,
//! as long as `analytics.log-retention` says; one gateway copies at a time,
//! the others stand by. Nobody waits for a sink: how far it is behind is a
//! metric.
//!
//! Called by `gateway`.

mod postgres;

pub(crate) use postgres::Postgres;
