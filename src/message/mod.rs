//! What a message is before and after it is stored.
//!
//! Pure: [`Draft`] is a send that has been checked field by field, [`IdSource`]
//! numbers messages, [`Mark`] names a stored one, and [`Places`] says of one
//! connection what it is to be given next. Time is taken as a value.
//!
//! Called by `session`, `admin` (drafts), `hub` (places) and `pipeline`.

mod draft;
mod holdings;
mod ledger;
mod mark;
mod place;
mod places;
mod proof;
mod snowflake;

pub(crate) use draft::{Draft, DraftError};
pub(crate) use ledger::Stride;
pub(crate) use mark::{Mark, message_id};
pub(crate) use place::{Place, Verdict, id_check};
pub(crate) use places::{CarriedPlaces, Places, Pulling};
pub(crate) use proof::{Proof, prove};
pub(crate) use snowflake::{IdSource, MAX_NODE};
