//! Traffic whose every message is accounted for.
//!
//! A [`Fleet`] is many clients in conversations with each other, over any of
//! several gateways that may fail and come back. It yields a
//! [`History`](crate::history::History) for [`check`](crate::history::check).

mod audit;
mod client;
mod fleet;
mod inbound;
mod outbox;
mod recorder;
mod replica;
mod scenario;
mod shared;

pub(crate) use audit::read as read_log;
pub use fleet::{Fleet, Traffic};
pub(crate) use recorder::digest;
pub(crate) use scenario::Check;
