//! The configuration: as written ([`File`], environment, flags) and as used
//! ([`Config`]).
//!
//! [`resolve`] turns the first into the second in one step, without touching
//! the network, and reports every error at once with its file, variable or
//! flag, its key and what is allowed. Flag over environment over file over
//! default. Unknown keys are errors. The rest of the program sees [`Config`]
//! only.
//!
//! Every key has one environment variable, `TIDEGATE_` and the key path in
//! capitals: `redis.url` is `TIDEGATE_REDIS_URL`. Values that are not text are
//! written as in TOML. `TIDEGATE_CONFIG` names the file.

mod error;
mod file;
mod key;
mod layers;
mod resolve;
mod secret;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use error::ConfigErrors;
pub(crate) use key::KeyError;
pub use layers::process_env;
pub use resolve::{Flags, resolve};
pub(crate) use secret::Secret;
use serde::Deserialize;

use crate::analytics::Zone;
use crate::types::GatewayId;

/// Everything the gateway needs to know, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// WebSocket listener.
    pub listen: SocketAddr,
    /// Admin and metrics listener.
    pub admin: SocketAddr,
    /// Key that admin calls must carry; required when `admin` is not loopback.
    pub admin_api_key: Option<Secret>,
    /// Shared state and bus; `None` = alone.
    pub redis: Option<RedisConfig>,
    /// Name of this gateway; `None` = drawn once and kept in `data_dir`.
    pub gateway_id: Option<GatewayId>,
    /// Where the gateway keeps what must survive a restart.
    pub data_dir: PathBuf,
    /// `data_dir` was brought back from a backup: every conversation begins a
    /// new history.
    pub restored: bool,
    /// Tokio worker threads; default: the number of cores.
    pub workers: usize,
    /// How clients prove who they are.
    pub auth: AuthConfig,
    /// Origins accepted in a browser's handshake; empty = any.
    pub origins: Vec<String>,
    /// Bounds on what one client can cost.
    pub limits: Limits,
    /// What STORED means.
    pub durability: Durability,
    /// How long messages are kept.
    pub retention: Retention,
    /// When a group is too large or too busy for every copy to be pushed.
    pub groups: Groups,
    /// Who came, and what was reported.
    pub analytics: Analytics,
    /// Who is online, and who may see it.
    pub presence: Presence,
    /// Heartbeat interval told to clients (1-35 s; 15-35 s in production).
    pub heartbeat: Duration,
    /// Shortest time between two refreshes of a user's route (1-50 s).
    pub route_refresh: Duration,
    /// Longest a hot restart may keep clients waiting (100 ms-30 s).
    pub handover_pause: Duration,
    /// Time over which clients are asked to leave when the gateway drains
    /// (1 s-10 min).
    pub drain: Duration,
    /// Log filter in `tracing` syntax, e.g. `info,tidegate=debug`.
    pub log_filter: String,
    /// Log as JSON lines instead of text.
    pub log_json: bool,
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/db]`.
    pub url: Secret,
    /// Precedes every key and channel; `[A-Za-z0-9_.:-]{0,32}`.
    pub prefix: String,
    /// Deadline of one round trip.
    pub timeout: Duration,
}

/// What STORED means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// The level every ack must have, 1-3; `None` = what the store at hand
    /// confirms.
    pub level: Option<u32>,
    /// Replicas that must confirm at level 3.
    pub replicas: u32,
}

/// How long the messages of one kind of conversation are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Oldest age; `None` = any.
    pub age: Option<Duration>,
    /// Most messages per conversation; `None` = any number.
    pub count: Option<u64>,
}

/// How long messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Between two users.
    pub p2p: Keep,
    /// In groups.
    pub group: Keep,
}

/// When a group is too large or too busy for every copy to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Members online here up to which messages are pushed.
    pub push_members: usize,
    /// Messages per second up to which they are pushed.
    pub push_rate: u32,
    /// Time over which the pulls after one hint are spread.
    pub pull_spread: Duration,
    /// Members up to which everybody is told what others received and read.
    pub receipt_members: u64,
}

/// How people are counted, and for how long that is kept.
#[derive(Debug, Clone)]
pub struct Analytics {
    /// Where days begin and end.
    pub(crate) zone: Zone,
    /// Age at which entries of the log are removed.
    pub log_age: Duration,
    /// Most entries of the log.
    pub log_count: u64,
    /// Where an address is, in the MaxMind format.
    pub geo_database: Option<PathBuf>,
    /// A PostgreSQL that everything is copied to.
    pub postgres: Option<PostgresConfig>,
    /// Daily numbers in Redis are exact.
    pub exact: bool,
    /// Time between two samples of how many are online.
    pub sample_every: Duration,
    /// Age at which samples and daily numbers are removed.
    pub history_age: Duration,
}

/// A PostgreSQL that is copied to.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Where it is, with the password.
    pub url: Secret,
    /// What the copies of this cluster are marked with.
    pub source: String,
}

/// Who is online, and who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Whether anything is known of who is online, and of who came.
    pub enabled: bool,
    /// Silence after which a user is offline.
    pub window: Duration,
    /// Time after a goodbye in which a user may come back.
    pub grace: Duration,
    /// Who may watch a user.
    pub visibility: Visibility,
    /// Most users that one connection may watch.
    pub max_watched: usize,
}

/// Who may watch a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Who shares a conversation.
    Conversation,
    /// Everybody.
    All,
    /// Nobody.
    None,
}

/// Bounds on what one client can cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest WebSocket message and frame, bytes.
    pub max_frame_bytes: usize,
    /// Most queued bytes of one connection before it counts as slow.
    pub outbox_bytes: usize,
    /// Most queued frames of one connection before it counts as slow.
    pub outbox_frames: usize,
    /// Most connections; more are refused with 503.
    pub max_connections: usize,
    /// Deadline of the handshake.
    pub handshake: Duration,
    /// Longest a client may take from the first byte of a message to its last.
    pub message: Duration,
    /// Most frames a non-loopback connection may send per second on average;
    /// `None` = unlimited.
    pub frames_per_second: Option<u32>,
    /// Whether `frames_per_second` binds loopback peers too (it was
    /// configured, not defaulted).
    pub limit_loopback: bool,
    /// Longest a send waits for the store before it gets RETRY_LATER.
    pub send_wait: Duration,
}

/// How clients prove who they are.
#[derive(Debug, Clone)]
pub enum AuthConfig {
    /// The query names the identity. Loopback listeners only, unless forced.
    None,
    /// Signed tokens.
    Jwt(JwtConfig),
}

/// What a token must satisfy.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Keys, each pinned to its algorithm.
    pub keys: Vec<JwtKey>,
    /// Required `iss`, when set.
    pub issuer: Option<String>,
    /// Required `aud`, when set; when not, a token that names an audience is
    /// meant for somebody else and refused.
    pub audience: Option<String>,
    /// Clock difference forgiven in `exp` and `nbf`.
    pub leeway: Duration,
}

/// One verification key.
#[derive(Debug, Clone)]
pub struct JwtKey {
    /// The only algorithm this key is used with.
    pub algorithm: JwtAlgorithm,
    /// The `kid` this key answers to; `None` = any.
    pub kid: Option<String>,
    /// Shared secret (HS256) or PEM public key.
    pub material: Secret,
}

/// Supported signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256; the secret has at least 32 bytes.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256; the key has 2048 to 4096 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}
