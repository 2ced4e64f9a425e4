//! A WebSocket connection gateway with an embedded routing table.
//!
//! Apps hold persistent sockets to it; it knows which gateway holds which
//! user, carries protobuf envelopes, stores and acknowledges messages, and
//! fans deliveries out to peer gateways.
//!
//! # Layout
//!
//! Data flows one way. In: `net → ws → session → pipeline → {store, route,
//! bus}`. Out: `bus → pipeline → hub → session`. A folder imports only what
//! stands below it; `tests/architecture.rs` holds the table.
//!
//! | folder | owns |
//! |---|---|
//! | `types` | the words of the domain |
//! | `config`, `telemetry` | what is set, what is measured |
//! | `wire`, `timer`, `message`, `analytics` | pure cores: bytes, deadlines, messages, who came |
//! | `hub` | the connections of this gateway |
//! | `redis` | one supervised connection, keys, scripts, leases |
//! | `route`, `presence`, `bus`, `store` | four ports, each with two backends and one suite |
//! | `pipeline` | the product's verbs |
//! | `census` | who comes, gathered and counted |
//! | `sink` | copies of that in databases outside |
//! | `net`, `ws`, `session` | sockets, upgrade, the connection |
//! | `handover` | one process taking over from another |
//! | `task` | tasks the gateway cannot live without |
//! | `admin` | HTTP for operators |
//! | `gateway` | puts it all together |
//! | `client`, `cli` | the terminal side |
//! | `bench` | what benchmarks drive of all this |

mod admin;
mod analytics;
mod bench;
mod bus;
mod census;
pub mod cli;
mod client;
mod config;
mod gateway;
mod handover;
mod hub;
mod message;
mod net;
mod pipeline;
#[cfg(feature = "planted-bugs")]
mod planted;
mod presence;
mod redis;
mod route;
mod session;
#[cfg(feature = "postgres")]
mod sink;
mod store;
mod task;
mod telemetry;
mod timer;
mod types;
mod wire;
mod ws;

pub use config::{Config, ConfigErrors, Flags, process_env, resolve};
pub use gateway::{Exit, Gateway, GatewayError};
pub use telemetry::install_log;

/// The protobuf types of the client protocol and the bus.
pub mod proto {
    pub use crate::wire::pb::*;
}

/// For fuzz targets and benchmarks; not part of the interface.
#[doc(hidden)]
pub mod internal {
    pub use crate::bench::{Crowd, Standing};
    pub use crate::redis::APPEND_TEXT;
    pub use crate::timer::Wheel;
    pub use crate::wire::{
        Event, FrameError, Frames, HEARTBEAT_ECHO, Header, Inbound, OpCode, Payload, VarintError, Violation,
        decode, decode_varint, encode, encode_varint, parse_header, reply, unmask,
    };

    /// What one connection is allocated in, and the bytes of each.
    #[must_use]
    pub fn connection_parts() -> [(&'static str, usize); 3] {
        use crate::hub::{Outbox, Peer};
        // A task is aligned to two cache lines, and an `Arc` counts twice.
        const TOKIOS: usize = 96;
        const COUNTS: usize = 16;
        let task = (TOKIOS + size_of::<crate::session::Connection>()).next_multiple_of(128);
        let beside = COUNTS + size_of::<Peer>() - size_of::<Outbox>();
        [("task", task), ("outbox", size_of::<Outbox>()), ("what is shared of it", beside)]
    }
}
