//! What the clients' logs are held against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::{ClientLog, Message};

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// What every client saw.
    pub clients: Vec<ClientLog>,
    /// Every conversation as it was read when all was over.
    pub logs: BTreeMap<Arc<str>, FinalLog>,
    /// Who was in which conversation, and when.
    pub members: BTreeMap<Arc<str>, Vec<Stay>>,
    /// What was done to the servers meanwhile.
    pub injections: Vec<Injection>,
}

/// A conversation at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FinalLog {
    /// Its history's name.
    pub epoch: u64,
    /// The oldest message kept; 0 = none.
    pub first_available: i64,
    /// The newest one.
    pub top: i64,
    /// All of them, ascending.
    pub messages: Vec<Message>,
}

/// One membership, from joining to removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// Who.
    pub user: i64,
    /// Sees what has a larger seq …
    pub since_seq: i64,
    /// … up to this one; `None` = is a member still.
    pub until_seq: Option<i64>,
}

impl Stay {
    /// Whether this stay lets its user see the message at `seq`.
    pub(super) fn covers(&self, seq: i64) -> bool {
        self.since_seq < seq && self.until_seq.is_none_or(|until| seq <= until)
    }
}

/// A fault, at the moment it was brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Since the run began.
    pub at: Duration,
    /// In words.
    pub what: String,
    /// Sends without an answer at that moment.
    pub in_flight: u64,
}
