//! The connections of this gateway: who is here, and the queue to each.
//!
//! Owns the map user → devices → [`Peer`] and the [`Rooms`] of groups, the only
//! `dashmap`s of the program; their guards never leave this folder, and nothing
//! is sent under one. A [`Peer`] is what the rest of the gateway holds of a
//! connection; the connection itself belongs to its task. Fan-out encodes once,
//! never awaits, and costs one slow reader only itself: its outbox is bounded
//! in bytes and count. Of each conversation a connection gets every message
//! once and in order; what comes too early waits in [`Gaps`]. While they move
//! to another process connections hold still ([`Freeze`]).
//!
//! Called by `session` (register, remove, drain the outbox), `pipeline`
//! (deliver, repair, kick) and `gateway` (liveness, re-bind). Does no I/O but for
//! one: a fan-out writes to the sockets of those who wait for nothing else.

mod carry;
mod copies;
mod direct;
mod freeze;
mod gap;
mod hints;
mod outbox;
mod peer;
mod registry;
mod room;
mod rooms;
mod run;
mod seat;
mod standing;
mod tail;

pub(crate) use carry::{CarriedOutbox, CarriedTimes};
pub(crate) use copies::{Offered, Start};
pub(crate) use freeze::{Deposits, Freeze, Held as HeldConnection, Stage};
pub(crate) use gap::{Gaps, Held, PATIENCE_MS};
pub(crate) use outbox::{Class, Ending, Frame, Outbox, OutboxLimits, Taken};
pub(crate) use peer::{Peer, PeerIdentity};
pub(crate) use registry::{Hub, Registered};
pub(crate) use room::{CarriedRoom, Room, Turn};
pub(crate) use run::{Fanned, MAX_RUN, Run};
pub(crate) use seat::Seat;
