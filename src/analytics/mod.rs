//! Who came, and what they did, as values: the words of the log of events, of
//! the daily users and of the history of online numbers.
//!
//! Pure: what time it is, and what is stored, is handed in.
//!
//! - [`Event`]: what an application reports, validated field by field.
//! - [`Entry`]: what the log keeps, of an event or of a [`Person`] seen.
//! - [`Zone`], [`Day`]: which calendar day an instant belongs to.
//! - [`Seen`]: who was seen on a day already, so that one entry is enough.
//! - [`rollup`]: minutes of online numbers as steps with gaps.
//!
//! Called by `store`, which keeps them, and by `census`, which gathers them.

mod day;
mod entry;
mod event;
mod history;
mod person;
mod place;
mod seen;

pub(crate) use day::{Day, Zone, instant};
pub(crate) use entry::{Entry, Item, Position, SEEN};
pub(crate) use event::{Event, PAST_MS};
pub(crate) use history::{History, Sample, Span, Step, aligned, rollup};
pub(crate) use person::{InstallId, Person};
pub(crate) use place::{By, Place, Places};
pub(crate) use seen::{Seen, Visit};

/// How large the relative standard error of an estimated number of people is,
/// by HyperLogLog with 16384 registers.
pub(crate) const ESTIMATE_ERROR: f64 = 0.0081;

/// How many came on a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Daily {
    /// Everybody, once.
    pub total: u64,
    /// By place, where it was asked for: who came from two counts in both.
    pub places: Vec<(Place, u64)>,
    /// How often the day was counted anew.
    pub version: u64,
    /// Whether the numbers are estimates ([`ESTIMATE_ERROR`]).
    pub is_estimated: bool,
}
