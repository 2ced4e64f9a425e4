//! Port: who came and what was reported, the daily numbers, the online ones.
//!
//! One write side, a log; daily numbers are made of it as it is written and
//! can be made again ([`Ledger::begin_recount`]). Two backends, one suite
//! (`conformance`). Promises of both:
//! - [`Ledger::append`] is as durable as [`super::Store::append`] when it
//!   returns. Of entries with the same id and installation the first of 7 days
//!   is kept. A batch that is numbered by its writer is appended once, however
//!   often it is tried.
//! - Positions only grow; none is ever given twice, so that a position is a
//!   key for whoever copies the log elsewhere.
//! - A person counts once a day, in total and in each place. The embedded
//!   store is exact; Redis is as it is configured to be.
//! - A day's numbers have a version; a recount made from another version than
//!   the one it replaces is refused.
//! - At an instant there is at most one sample, the first.
//! - A sink's position is kept where the log is ([`Ledger::set_sunk`]).
//!
//! Called by `census`. Instants are unix ms and handed in.

#[cfg(test)]
mod conformance;

use super::embedded::EmbeddedStore;
use super::{RedisLedger, StoreError};
use crate::analytics::{By, Daily, Day, Entry, Item, Person, Place, Position, Sample};

/// Entries to append together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// In order.
    pub items: &'a [Item],
    /// Who writes, and a number of this batch among his; `None` = only ids
    /// protect it from being appended twice.
    pub writer: Option<(&'a str, u64)>,
    /// When, unix ms.
    pub now: i64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Entries in the log.
    pub accepted: u64,
    /// Entries that were there already.
    pub duplicates: u64,
}

/// A part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogPage {
    /// In the order of their positions.
    pub entries: Vec<(Position, Entry)>,
    /// Whether more follow.
    pub has_more: bool,
}

/// Somebody on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// When.
    pub day: Day,
    /// Who.
    pub person: Person,
    /// Where.
    pub place: Place,
}

impl Counted {
    /// Who is counted for an entry, if anybody.
    #[must_use]
    pub(crate) fn of(entry: &Entry, day: Day) -> Option<Self> {
        Some(Self { day, person: entry.person()?, place: entry.place.clone() })
    }

    /// The places it counts in.
    pub(super) fn groups(&self) -> impl Iterator<Item = (By, Place)> {
        [By::Province, By::City].into_iter().filter_map(|by| Some((by, self.place.group(by)?)))
    }
}

/// A day being counted anew, beside the numbers it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recount {
    /// Which day.
    pub day: Day,
    /// The version it is to replace.
    pub version: u64,
    /// Tells it from others that are under way.
    pub(super) nonce: u64,
}

/// What became of a recount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recounted {
    /// It is what is told from now on, by this version.
    Done(u64),
    /// It was made from an older version than this one; nothing has changed.
    Stale(u64),
}

/// The backends.
#[derive(Debug, Clone)]
pub(crate) enum Ledger {
    /// In this process's own files.
    Embedded(EmbeddedStore),
    /// In Redis.
    Redis(RedisLedger),
}

/// The same call on whichever backend.
macro_rules! on {
    ($self:expr, $ledger:ident => $call:expr) => {
        match $self {
            Self::Embedded($ledger) => $call,
            Self::Redis($ledger) => $call,
        }
    };
}

impl Ledger {
    /// Appends a batch and counts its people.
    pub(crate) async fn append(&self, batch: Batch<'_>) -> Result<Recorded, StoreError> {
        on!(self, ledger => ledger.record(batch).await)
    }

    /// Entries behind `after`, at most `limit`.
    pub(crate) async fn read(&self, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        on!(self, ledger => ledger.read_log(after, limit).await)
    }

    /// The last position that was given; none = the least of all.
    #[cfg(test)]
    pub(crate) async fn end(&self) -> Result<Position, StoreError> {
        on!(self, ledger => ledger.log_end().await)
    }

    /// Everything up to here may be gone.
    pub(crate) async fn trimmed(&self) -> Result<Position, StoreError> {
        on!(self, ledger => ledger.log_trimmed().await)
    }

    /// Removes what was appended before `before`, unix ms, and the oldest
    /// beyond the last `most` entries; how many.
    pub(crate) async fn trim(&self, before: i64, most: u64) -> Result<u64, StoreError> {
        on!(self, ledger => ledger.trim_log(before, most).await)
    }

    /// How far a sink has copied the log.
    #[cfg_attr(not(any(test, feature = "postgres")), allow(dead_code, reason = "for sinks"))]
    pub(crate) async fn sunk(&self, sink: &str) -> Result<Position, StoreError> {
        on!(self, ledger => ledger.sunk(sink).await)
    }

    /// Remembers how far a sink has copied it. Never goes back.
    #[cfg_attr(not(any(test, feature = "postgres")), allow(dead_code, reason = "for sinks"))]
    pub(crate) async fn set_sunk(&self, sink: &str, at: Position) -> Result<(), StoreError> {
        on!(self, ledger => ledger.set_sunk(sink, at).await)
    }

    /// The numbers of these days, one each.
    pub(crate) async fn days(&self, days: &[Day], by: Option<By>) -> Result<Vec<Daily>, StoreError> {
        on!(self, ledger => ledger.days(days, by).await)
    }

    /// Counts people who are in the log already.
    pub(crate) async fn count(&self, counted: &[Counted]) -> Result<(), StoreError> {
        on!(self, ledger => ledger.count(counted).await)
    }

    /// Begins to count a day anew.
    pub(crate) async fn begin_recount(&self, day: Day) -> Result<Recount, StoreError> {
        let version = self.days(&[day], None).await?.pop().unwrap_or_default().version;
        Ok(Recount { day, version, nonce: fastrand::u64(1..) })
    }

    /// Counts these people in a recount.
    pub(crate) async fn recount(&self, recount: &Recount, counted: &[Counted]) -> Result<(), StoreError> {
        on!(self, ledger => ledger.recount(recount, counted).await)
    }

    /// Puts the recount in the place of the numbers, unless they have another
    /// version by now.
    pub(crate) async fn finish_recount(&self, recount: &Recount) -> Result<Recounted, StoreError> {
        on!(self, ledger => ledger.finish_recount(recount).await)
    }

    /// Removes what a recount that is not finished leaves behind.
    pub(crate) async fn abandon_recount(&self, recount: &Recount) -> Result<(), StoreError> {
        match self {
            // Where it cannot be finished, nothing can be written.
            Self::Embedded(_) => Ok(()),
            Self::Redis(ledger) => ledger.abandon_recount(recount).await,
        }
    }

    /// Those of these days of which people are kept in another way than is
    /// configured.
    pub(crate) async fn counted_otherwise(&self, days: &[Day]) -> Result<Vec<Day>, StoreError> {
        match self {
            Self::Embedded(_) => Ok(Vec::new()),
            Self::Redis(ledger) => ledger.counted_otherwise(days).await,
        }
    }

    /// Removes them of this day: they are counted as is configured now.
    pub(crate) async fn forget_otherwise(&self, day: Day) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Redis(ledger) => ledger.forget_otherwise(day).await,
        }
    }

    /// Keeps a day's numbers and forgets its people: nobody can come to it any
    /// more. Where both ways of counting have some, that which knows more.
    pub(crate) async fn close_day(&self, day: Day) -> Result<(), StoreError> {
        on!(self, ledger => ledger.close_day(day).await)
    }

    /// Keeps a sample; whether it is the first of its instant. One that is
    /// older than the last may be refused too.
    pub(crate) async fn sample(&self, sample: Sample) -> Result<bool, StoreError> {
        on!(self, ledger => ledger.sample(sample).await)
    }

    /// Samples from `from` on and before `to`, in order.
    pub(crate) async fn samples(&self, from: i64, to: i64) -> Result<Vec<Sample>, StoreError> {
        on!(self, ledger => ledger.samples(from, to).await)
    }

    /// Removes samples before `before`, unix ms, and the numbers of days
    /// before `day`; how many samples.
    pub(crate) async fn forget(&self, before: i64, day: Day) -> Result<u64, StoreError> {
        on!(self, ledger => ledger.forget(before, day).await)
    }

    /// Whether it is up to this gateway to do what one of all has to do; it
    /// is for `ms` from now on.
    pub(crate) async fn takes_turn(&self, ms: u64) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(_) => Ok(true),
            Self::Redis(ledger) => ledger.takes_turn(ms).await,
        }
    }
}
