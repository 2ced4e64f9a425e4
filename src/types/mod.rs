//! Words of the domain, imported by every other folder and importing none.
//!
//! Owns the identifiers and their validation, the fields of a reported event,
//! the one table that maps every way a connection ends to what is said about
//! it, the life phases of the process, and the clock. Everything here is a
//! plain value.

mod clock;
mod close;
mod conversation;
mod field;
mod ids;
mod phase;

#[cfg(test)]
pub(crate) use clock::simulated;
pub(crate) use clock::{continue_monotonic, monotonic_ms, unix_micros, unix_ms};
pub(crate) use close::CloseReason;
pub(crate) use conversation::ConversationId;
pub(crate) use field::EventField;
pub(crate) use ids::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef, UserId, fnv1a64, valid_client_msg_id};
pub(crate) use phase::Phase;
