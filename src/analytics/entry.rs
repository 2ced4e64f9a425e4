//! What the log keeps.

use std::fmt;

use super::{Day, InstallId, Person, Place};
use crate::types::UserId;

/// Name of an entry that says no more than that somebody was here; no event
/// can be named so.
pub(crate) const SEEN: &str = "$seen";

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What happened: an event's name, or [`SEEN`].
    pub name: String,
    /// To whom, if he is signed in.
    pub user: Option<UserId>,
    /// On which installation, if it is known.
    pub install: Option<InstallId>,
    /// When, unix ms, by the client's clock.
    pub at: i64,
    /// When it came to a gateway, unix ms.
    pub received_at: i64,
    /// The client's name for it; empty = none.
    pub id: String,
    /// Where.
    pub place: Place,
    /// A JSON object, as it was sent; empty = none.
    pub properties: String,
}

impl Entry {
    /// Who counts.
    #[must_use]
    pub(crate) fn person(&self) -> Option<Person> {
        Person::of(self.user, self.install.clone())
    }

    /// Names it among all, if the client named it: of two entries of one
    /// installation with one id only the first is kept.
    #[must_use]
    pub(crate) fn key(&self) -> Option<[u8; 16]> {
        if self.id.is_empty() {
            return None;
        }
        let install = self.install.as_ref().map_or("", InstallId::as_str);
        let text = [install.as_bytes(), b"|", self.id.as_bytes()].concat();
        Some(xxhash_rust::xxh3::xxh3_128(&text).to_be_bytes())
    }
}

/// An entry on its way to the log, and the day its person is counted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The line.
    pub entry: Entry,
    /// Of `entry.at`, in the zone that is configured.
    pub day: Day,
}

/// A place in the log: the store's time at which the entry was appended, unix
/// ms, and a number within that. Positions only grow and none is given twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// Unix ms.
    pub ms: u64,
    /// Within it.
    pub n: u64,
}

impl Position {
    /// Behind everything before this instant, unix ms, and before all else.
    #[must_use]
    pub(crate) fn before(ms: i64) -> Self {
        let ms = u64::try_from(ms).unwrap_or(0);
        ms.checked_sub(1).map_or(Self::default(), |ms| Self { ms, n: u64::MAX })
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ms, n) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, n: n.parse().ok()? })
    }
}

/// `<ms>-<n>`, as a Redis stream writes it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}
