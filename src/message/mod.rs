//! What a message is before and after it is stored.
//!
//! Pure: [`Draft`] is a send that has been checked field by field, [`IdSource`]
//! numbers messages. Both take the time as a value.
//!
//! Called by `session`, `admin` (drafts) and `pipeline` (ids).

mod draft;
mod snowflake;

pub(crate) use draft::{Draft, DraftError};
pub(crate) use snowflake::{IdSource, MAX_NODE};
