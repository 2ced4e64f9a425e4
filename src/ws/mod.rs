//! From an accepted socket to a WebSocket with a name.
//!
//! Owns the HTTP upgrade ([`handshake`]): reading the request under limits,
//! refusing with a precise status, finding the credentials; and the judgement
//! of credentials ([`auth`]). After the upgrade the bytes belong to `session`;
//! what was read past the request goes along.
//!
//! Called by `session`.

pub(crate) mod auth;
pub(crate) mod handshake;
mod query;
