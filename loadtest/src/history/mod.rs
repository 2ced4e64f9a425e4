//! What many clients saw, and whether the delivery promise was kept.
//!
//! Pure: logs in, a [`Verdict`] out. Four things are decided.
//!
//! | | must hold |
//! |---|---|
//! | I1 | every acknowledged message is in the log, and every member has it |
//! | I2 | each client sees each conversation in seq order, without a hole; a seq names one message per epoch; a sender's messages stand in the order he sent them |
//! | I3 | one clientMsgId of a sender is one message for ever |
//! | I4 | nobody gets what he may not see |
//!
//! What is gone must have been told: whoever knows of a message that the final
//! log does not hold was told RESYNC afterwards. A run that checked too little
//! is void, which is not the same as good.

mod check;
mod delivery;
mod event;
mod ledger;
mod rules;
#[cfg(test)]
mod tests;
mod truth;
mod violation;
mod walk;

pub use check::check;
pub use event::{ClientLog, Event, How, Message, Position, Record};
pub use rules::{Rules, Verdict};
pub use truth::{FinalLog, History, Injection, Stay};
pub use violation::Violation;
