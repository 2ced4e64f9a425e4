//! Redis, for the three ports that have it behind them.
//!
//! Owns every key and channel name ([`Keys`]), the Lua scripts, and one
//! supervised connection ([`Client`]): commands fail at once while it is down
//! and after a deadline when it hangs, it comes back by itself however long
//! the outage lasted, and whoever cares watches [`Link`]. It also knows how
//! durable a write is ([`Assurance`]) and waits for that. A timeout means
//! "unknown", never "failed": every write here is idempotent.
//!
//! Called by `route`, `presence`, `bus` and `store`; `gateway` watches the link.

mod client;
mod durability;
mod error;
mod gather;
mod keeper;
mod keys;
mod lease;
mod node;
mod reply;
mod script;
mod server;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use client::{Client, Link};
pub(crate) use durability::{Assurance, Wait};
pub(crate) use error::{RedisError, is_permanent};
pub(crate) use keys::Keys;
pub(crate) use lease::{Lease, LeaseError, LeaseRecord, Renewal};
pub(crate) use node::NodeLease;
pub(crate) use reply::text;
pub use script::APPEND_TEXT;
pub(crate) use script::{
    APPEND, BIND, CREATE, Call, DELETE, JOIN, LEAVE, MEMBER, POSITION, PRESENCE, PRESENCE_COUNT,
    PRESENCE_LOOK, RECORD, RECOUNT, SINK, UNBIND,
};
