//! `[groups]` as written.

use serde::Deserialize;

use super::Time;

/// `[groups]`: when a group is too large or too busy for every copy to be
/// pushed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct GroupsTable {
    /// Members online on one gateway up to which messages are pushed;
    /// above, members are told to pull. 0-10000000. Default 20000.
    pub push_members: usize,
    /// Messages per second up to which they are pushed, 1-1000000. Default
    /// 100.
    pub push_rate: u32,
    /// Time over which the pulls after one hint are spread, 0s-60s. Default
    /// `2s`.
    pub pull_spread: Time,
    /// Members up to which everybody is told what others received and read,
    /// 0-10000. Default 200.
    pub receipt_members: u64,
}

impl Default for GroupsTable {
    fn default() -> Self {
        Self { push_members: 20_000, push_rate: 100, pull_spread: Time::seconds(2), receipt_members: 200 }
    }
}
