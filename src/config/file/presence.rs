//! `[presence]` as written.

use serde::Deserialize;

use super::Time;

/// `[presence]`: who is online and who may see it, and how many came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct PresenceTable {
    /// Whether any of this is done, and the log of who came and of events is
    /// kept. The same on all gateways. Default true.
    pub enabled: bool,
    /// Silence after which a user is offline, 3s-1h and at least three
    /// heartbeat intervals. Default `180s`.
    pub window: Time,
    /// Time after the last device's goodbye in which a user may come back
    /// without having been offline, 0s-60s and below `window`. Default `5s`.
    pub grace: Time,
    /// Who may watch a user: `"conversation"`: whoever has a group in common
    /// with it, or a conversation of two in which both have written; `"all"`;
    /// `"none"`. Default `"conversation"`.
    pub visibility: VisibilityWord,
    /// Most users that one connection may watch, 1-100000. Default 1000.
    pub max_watched: usize,
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

/// Values of `presence.visibility`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VisibilityWord {
    /// Who shares a conversation.
    Conversation,
    /// Everybody.
    All,
    /// Nobody.
    None,
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

impl Default for PresenceTable {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Time::seconds(180),
            grace: Time::seconds(5),
            visibility: VisibilityWord::Conversation,
            max_watched: 1_000,
            dau: DauWord::Estimated,
            sample_every: Time::seconds(60),
            history_age: Time::seconds(400 * 24 * 3600),
        }
    }
}
