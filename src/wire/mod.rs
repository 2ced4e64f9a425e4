//! Bytes and their meaning, without any I/O.
//!
//! Three layers, inner to outer: an [`envelope`] is one protobuf message; a
//! frame ([`frame`]) is `varint(length) ++ envelope`, several to a WebSocket
//! message; a WebSocket frame ([`websocket`]) is RFC 6455. [`Inbound`] is the
//! receiving side of one connection: it takes bytes cut anywhere and yields
//! whole messages, holding memory only for what is unfinished.
//!
//! Called by `session` (both ways) and `pipeline` (encoding for fan-out).
//! Promises: every limit is checked before memory is taken, any split of the
//! same bytes gives the same result, and no input panics.

mod envelope;
mod frame;
mod inbound;
pub mod pb;
mod varint;
mod websocket;

pub use envelope::{Payload, decode, encode, reply};
pub(crate) use envelope::{decode_message, error, frame_encoded};
pub use frame::{FrameError, Frames};
pub use inbound::{Event, Inbound};
pub use varint::{VarintError, decode_varint, encode_varint};
#[cfg(test)]
pub(crate) use websocket::as_client;
pub use websocket::{HEARTBEAT_ECHO, Header, OpCode, Violation, parse_header, unmask};
pub(crate) use websocket::{close_frame, heartbeat_echo, pong_frame};
