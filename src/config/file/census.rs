//! The tables about who comes.

use std::path::PathBuf;

use serde::Deserialize;

use super::Time;

/// `[presence]`: how many are online, and how many came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct PresenceTable {
    /// `"estimated"`: daily numbers in Redis have a standard error of 0.81 %
    /// and take 12 KiB; `"exact"`: some 60 bytes for each person and place.
    /// Alone they are exact. Default `"estimated"`.
    pub dau: DauWord,
    /// Time between two samples of how many are online, 1s-1h. Default `60s`.
    pub sample_every: Time,
    /// Age at which samples and daily numbers are removed, 1d-3650d. Default
    /// `400d`.
    pub history_age: Time,
}

/// Values of `presence.dau`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DauWord {
    /// By HyperLogLog.
    Estimated,
    /// By sets.
    Exact,
}

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
}

impl Default for PresenceTable {
    fn default() -> Self {
        Self {
            dau: DauWord::Estimated,
            sample_every: Time::seconds(60),
            history_age: Time::seconds(400 * 24 * 3600),
        }
    }
}

impl Default for AnalyticsTable {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            log_age: Time::seconds(9 * 24 * 3600),
            log_count: 10_000_000,
            geo_database: None,
        }
    }
}
