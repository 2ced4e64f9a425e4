//! Who was seen, and what its client says of itself: told in one place,
//! whichever way it came in.

use std::collections::BTreeMap;

use super::Pipeline;
use crate::telemetry::metrics;
use crate::types::UserId;

/// Over which way somebody was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A connection began.
    Connection,
    /// A heartbeat over HTTP.
    Http,
}

/// Somebody is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// How that is known.
    pub way: Way,
    /// Who; not known of one that has only installed something.
    pub user: Option<UserId>,
    /// The installation.
    pub install: Option<String>,
    /// What the client says of itself: platform, appVersion, province, city …
    pub client: BTreeMap<String, String>,
}

impl Pipeline {
    /// Takes note of somebody. Never waits. Whatever is recorded of users over
    /// time is recorded from here.
    pub(crate) fn sighted(&self, sighting: &Sighting) {
        let m = &metrics().presence;
        match sighting.way {
            Way::Connection => &m.sighted_connection,
            Way::Http => &m.sighted_http,
        }
        .increment(1);
    }
}
