//! `[analytics]` as written.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::Secret;
use super::Time;

/// `[analytics]`: the log of who came and what was reported.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct AnalyticsTable {
    /// Where days begin and end: an IANA name, e.g. `Asia/Shanghai`. Default
    /// `UTC`.
    pub time_zone: String,
    /// Age at which entries of the log are removed, 1d-3650d. Default `9d`:
    /// a day can be counted anew while they are there.
    pub log_age: Time,
    /// Most entries of the log, 1000-1000000000. Default 10000000.
    pub log_count: u64,
    /// Database in the MaxMind format that says where an address is. Default:
    /// none.
    pub geo_database: Option<PathBuf>,
    /// `postgres://user:password@host/database` to copy the log, the daily and
    /// the online numbers to; needs the feature `postgres`. Default: none.
    pub postgres_url: Option<Secret>,
    /// Tells apart what several clusters copy into one database: 1-64 of
    /// `[A-Za-z0-9_.-]`. Default `tidegate`.
    pub postgres_source: String,
}

impl Default for AnalyticsTable {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            log_age: Time::seconds(9 * 24 * 3600),
            log_count: 10_000_000,
            geo_database: None,
            postgres_url: None,
            postgres_source: "tidegate".to_owned(),
        }
    }
}
