//! Listening sockets and accepted ones, tuned.
//!
//! Owns the socket options with their reasons and the accept loop, which only
//! accepts and hands on: the handshake runs in the connection's own
//! task, so one silent client stalls nobody.
//!
//! One shared listener with one accept task serves every worker. Two
//! SO_REUSEPORT listeners with an accept task each were measured beside it
//! (`benches/README.md`): the same server CPU per handshake and, within the
//! noise, as many handshakes per second, on two cores of which the load
//! generator took the larger part, so the accept task was never the limit;
//! many cores are not measured. A listener per worker spreads a hash of the
//! source port instead of the load and resets queued connections when one of
//! its sockets closes, so it has to win something first.
//!
//! Called by `gateway`.

mod accept;
mod socket;

pub(crate) use accept::run as accept;
pub(crate) use socket::Listener;
