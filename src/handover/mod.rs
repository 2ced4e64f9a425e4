//! One process takes over from another: listeners, live sockets and what is
//! known of them.
//!
//! The old process starts the new one with one end of a control socket
//! ([`Channel`]) as its standard input. While it still serves it hands over
//! the listeners and, connection by connection, copies of the sockets. Then
//! everything holds still: the bus is divided by a mark, what was begun is
//! finished, and the rest goes as records of a versioned, checksummed
//! [`state`] in a sealed memory file. The new process proves that it has all
//! of it; the old one says `Commit`, which is the only point of no return.
//! Before it any failure costs the pause and nothing else; after it the old
//! process never writes to a client again.
//!
//! Every step has a deadline, and what the new process does before the commit
//! touches no socket.
//!
//! Called by `gateway`, which starts and stops what is around it, and by
//! `admin` for the [`Orders`].

mod budget;
mod channel;
mod child;
mod error;
mod facts;
#[cfg(test)]
mod golden;
mod notify;
mod order;
mod parent;
mod precopy;
mod presence;
mod record;
mod spawn;
mod staging;
mod state;
mod writing;

use channel::Channel;
pub(crate) use child::{Inherited, Newcomer};
pub(crate) use error::HandoverError;
pub(crate) use facts::Facts;
pub(crate) use notify::Supervisor;
pub(crate) use order::{DrainOrder, Order, Orders, Report, UpgradeOrder};
pub(crate) use parent::{Committed, Estate};
pub(crate) use spawn::Program;
pub(crate) use staging::{Staged, stage};
