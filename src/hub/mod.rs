//! The connections of this gateway: who is here, and the queue to each.
//!
//! Owns the map user → devices → [`Peer`], the only `dashmap` of the program;
//! its guards never leave this folder, and nothing is sent under one. A
//! [`Peer`] is what the rest of the gateway holds of a connection; the
//! connection itself belongs to its task. Fan-out encodes once, never awaits,
//! and costs one slow reader only itself: its outbox is bounded in bytes and
//! count.
//!
//! Called by `session` (register, remove, drain the outbox), `pipeline`
//! (deliver, kick) and `gateway` (liveness, re-bind). Does no I/O.

mod outbox;
mod peer;
mod registry;

pub(crate) use outbox::{Class, Ending, Frame, OutboxLimits};
pub(crate) use peer::{Peer, PeerIdentity};
pub(crate) use registry::{Hub, Registered};
