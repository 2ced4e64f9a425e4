//! Listening sockets and accepted ones, tuned.
//!
//! Owns the socket options with their reasons and the accept loop, which only
//! accepts, tunes and hands on: the handshake runs in the connection's own
//! task, so one silent client stalls nobody.
//!
//! One shared listener with one accept task serves every worker. A listener
//! per worker (SO_REUSEPORT) was measured beside it with the load generator's
//! `connect` scenario and accepted no faster, since the handshake costs ten
//! times the accept, while it spreads a hash of the source port instead of
//! the load and resets queued connections when one of its sockets closes.
//!
//! Called by `gateway`.

mod accept;
mod socket;

pub(crate) use accept::run as accept;
pub(crate) use socket::Listener;
