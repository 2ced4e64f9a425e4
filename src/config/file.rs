//! The configuration as written.
//!
//! One struct per TOML table, one field per key. [`Default`] holds every
//! default; a field is an `Option` only where "not set" means something of its
//! own. What a single value must look like is checked here, ranges and what
//! keys demand of each other in `resolve`.
//!
//! Times are texts with a unit: `"500ms"`, `"30s"`, `"1m 30s"`. Paths are
//! relative to the working directory.

mod analytics;
mod groups;
mod presence;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub(crate) use self::analytics::AnalyticsTable;
pub(crate) use self::groups::GroupsTable;
pub(crate) use self::presence::{DauWord, PresenceTable, VisibilityWord};
use super::{JwtAlgorithm, Secret};

/// Top level.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct File {
    /// WebSocket listener, `IP:port`; port 0 draws one. Default
    /// `127.0.0.1:7700`. Anything but loopback needs `auth.mode = "jwt"`.
    pub listen: Address,
    /// Name of this gateway: 1-64 of `[A-Za-z0-9_.-]` or letters of any
    /// script. Default: drawn once and kept in `data_dir`.
    pub gateway_id: Option<String>,
    /// Directory of what must survive a restart. Default `./tidegate-data`.
    pub data_dir: PathBuf,
    /// Worker threads, 1-1024. Default: the number of cores.
    pub workers: Option<usize>,
    /// Origins accepted in a browser's handshake, e.g.
    /// `["https://chat.example"]`. Default: empty, which accepts any.
    pub origins: Vec<String>,
    /// `[admin]`
    pub admin: AdminTable,
    /// `[redis]`
    pub redis: RedisTable,
    /// `[auth]`
    pub auth: AuthTable,
    /// `[limits]`
    pub limits: LimitsTable,
    /// `[store]`
    pub store: StoreTable,
    /// `[retention]`
    pub retention: RetentionTable,
    /// `[groups]`
    pub groups: GroupsTable,
    /// `[presence]`
    pub presence: PresenceTable,
    /// `[analytics]`
    pub analytics: AnalyticsTable,
    /// `[handover]`
    pub handover: HandoverTable,
    /// `[heartbeat]`
    pub heartbeat: HeartbeatTable,
    /// `[route]`
    pub route: RouteTable,
    /// `[log]`
    pub log: LogTable,
}

/// `[admin]`: the HTTP interface for operators and metrics.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct AdminTable {
    /// Listener, `IP:port`; port 0 draws one. Default `127.0.0.1:7701`.
    /// Anything but loopback needs an API key.
    pub listen: Address,
    /// Key that admin calls must carry, 16-256 visible ASCII characters.
    /// Default: none.
    pub api_key: Option<Secret>,
    /// File that holds the key instead; surrounding white space is ignored.
    pub api_key_file: Option<PathBuf>,
}

/// `[redis]`: what gateways share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct RedisTable {
    /// `redis://[user:password@]host[:port][/db]`. Default: none, the gateway
    /// is alone and keeps messages in `data_dir`.
    pub url: Option<Secret>,
    /// Precedes every key and channel: up to 32 of `[A-Za-z0-9_.:-]`.
    /// Default: empty.
    pub prefix: String,
    /// Deadline of one round trip, 10ms-30s. Default `1s`.
    pub timeout: Time,
}

/// `[auth]`: how clients prove who they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct AuthTable {
    /// `"none"`: the query names the identity, on loopback only; `"jwt"`:
    /// signed tokens. Default `"none"`.
    pub mode: ModeWord,
    /// `iss` that tokens must have. Default: not checked.
    pub issuer: Option<String>,
    /// `aud` that tokens must have. Default: tokens must have none.
    pub audience: Option<String>,
    /// Clock difference forgiven in `exp` and `nbf`, 0s-5m. Default `30s`.
    pub leeway: Time,
    /// `[[auth.keys]]`; at least one with mode `"jwt"`. Default: none.
    #[serde(deserialize_with = "keys")]
    pub keys: Vec<KeyTable>,
}

/// Values of `auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeWord {
    /// Identity from the query.
    None,
    /// Signed tokens.
    Jwt,
}

/// `[[auth.keys]]`: one key that verifies tokens. Exactly one of the four
/// sources of key material is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct KeyTable {
    /// `"HS256"`, `"RS256"`, `"ES256"` or `"EdDSA"`: the only algorithm this
    /// key is used with. Required.
    pub algorithm: JwtAlgorithm,
    /// `kid` this key answers to. Default: any.
    pub kid: Option<String>,
    /// HS256: the shared secret, at least 32 bytes, used as written.
    pub secret: Option<Secret>,
    /// HS256: file with the secret; surrounding white space is ignored.
    pub secret_file: Option<PathBuf>,
    /// Other algorithms: the public key, PEM.
    pub public_key: Option<Secret>,
    /// Other algorithms: file with the public key, PEM.
    pub public_key_file: Option<PathBuf>,
}

/// `[limits]`: bounds on what one client can cost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct LimitsTable {
    /// Largest WebSocket message and frame, bytes, 1024-16777216. Default
    /// 131072.
    pub max_frame_bytes: usize,
    /// Most queued bytes of one connection before it counts as slow, 4096-1073741824
    /// and not below `max_frame_bytes`. Default 1048576.
    pub outbox_bytes: usize,
    /// Most queued frames of one connection before it counts as slow,
    /// 16-1000000. Default 4096.
    pub outbox_frames: usize,
    /// Most connections, 1-10000000; more are refused with 503. Default
    /// 1000000.
    pub max_connections: usize,
    /// Deadline of the handshake, 100ms-60s. Default `5s`.
    pub handshake: Time,
    /// Longest a client may take from the first byte of a message to its last,
    /// 1s-10m. Default `10s`.
    pub message: Time,
    /// Most frames one connection may send per second on average, up to
    /// 1000000; 0 = unlimited. Default 200, which spares loopback peers; a
    /// configured value binds them too.
    pub frames_per_second: u32,
    /// Longest a send waits for the store before it gets RETRY_LATER,
    /// 100ms-30s. Default `2s`.
    pub send_wait: Time,
}

/// `[store]`: what STORED means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct StoreTable {
    /// `"auto"`: as durable as the store at hand confirms; `"1"`, `"2"`,
    /// `"3"`: this level, and RETRY_LATER while it cannot be confirmed.
    /// Default `"auto"`.
    pub level: LevelWord,
    /// Replicas that must confirm at level 3, 1-16. Default 1.
    pub replicas: u32,
}

/// Values of `store.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum LevelWord {
    /// What the store confirms.
    #[serde(rename = "auto")]
    Auto,
    /// In memory.
    #[serde(rename = "1")]
    One,
    /// On disk.
    #[serde(rename = "2")]
    Two,
    /// Also on a replica.
    #[serde(rename = "3")]
    Three,
}

/// `[retention]`: how long messages are kept; ages 1h-3650d or `"0s"` = for
/// ever, counts per conversation, 0 = any number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct RetentionTable {
    /// Age of messages between two users. Default `30d`.
    pub p2p_age: Time,
    /// Number of messages between two users. Default 0.
    pub p2p_count: u64,
    /// Age of messages in groups. Default `7d`.
    pub group_age: Time,
    /// Number of messages in a group. Default 0.
    pub group_count: u64,
}

/// `[handover]`: the end of a process, and its beginning as another one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct HandoverTable {
    /// Longest a hot restart may keep clients waiting before it is given up,
    /// 100ms-30s. Default `2s`.
    pub pause: Time,
    /// Time over which clients are asked to leave when the gateway drains,
    /// 1s-10m. Default `5s`.
    pub drain: Time,
}

/// `[heartbeat]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct HeartbeatTable {
    /// Interval told to clients, 1s-35s. Default `30s`. Use 15s-35s: below,
    /// phones wake too often; the low end is there to make trials short.
    pub interval: Time,
}

/// `[route]`: how long a user is known to be here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct RouteTable {
    /// Shortest time between two refreshes of a user's route, 1s-50s. Default
    /// `40s`: a route lives 120 s, so one lost refresh does no harm.
    pub refresh: Time,
}

/// `[log]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct LogTable {
    /// Filter in `tracing` syntax, e.g. `info,tidegate=debug`. Default `info`.
    pub filter: String,
    /// `"text"` or `"json"` lines. Default `"text"`.
    pub format: FormatWord,
}

/// Values of `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatWord {
    /// For eyes.
    Text,
    /// For machines.
    Json,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: Address::loopback(7700),
            gateway_id: None,
            data_dir: "./tidegate-data".into(),
            workers: None,
            origins: Vec::new(),
            admin: AdminTable::default(),
            redis: RedisTable::default(),
            auth: AuthTable::default(),
            limits: LimitsTable::default(),
            store: StoreTable::default(),
            retention: RetentionTable::default(),
            groups: GroupsTable::default(),
            presence: PresenceTable::default(),
            analytics: AnalyticsTable::default(),
            handover: HandoverTable::default(),
            heartbeat: HeartbeatTable::default(),
            route: RouteTable::default(),
            log: LogTable::default(),
        }
    }
}

impl Default for AdminTable {
    fn default() -> Self {
        Self { listen: Address::loopback(7701), api_key: None, api_key_file: None }
    }
}

impl Default for RedisTable {
    fn default() -> Self {
        Self { url: None, prefix: String::new(), timeout: Time::seconds(1) }
    }
}

impl Default for AuthTable {
    fn default() -> Self {
        Self {
            mode: ModeWord::None,
            issuer: None,
            audience: None,
            leeway: Time::seconds(30),
            keys: Vec::new(),
        }
    }
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self {
            max_frame_bytes: 131_072,
            outbox_bytes: 1 << 20,
            outbox_frames: 4096,
            max_connections: 1_000_000,
            handshake: Time::seconds(5),
            message: Time::seconds(10),
            frames_per_second: 200,
            send_wait: Time::seconds(2),
        }
    }
}

impl Default for StoreTable {
    fn default() -> Self {
        Self { level: LevelWord::Auto, replicas: 1 }
    }
}

impl Default for RetentionTable {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        let (p2p_age, group_age) = (Time::seconds(30 * DAY), Time::seconds(7 * DAY));
        Self { p2p_age, p2p_count: 0, group_age, group_count: 0 }
    }
}

impl Default for HandoverTable {
    fn default() -> Self {
        Self { pause: Time::seconds(2), drain: Time::seconds(5) }
    }
}

impl Default for HeartbeatTable {
    fn default() -> Self {
        Self { interval: Time::seconds(30) }
    }
}

impl Default for RouteTable {
    fn default() -> Self {
        Self { refresh: Time::seconds(40) }
    }
}

impl Default for LogTable {
    fn default() -> Self {
        Self { filter: "info".into(), format: FormatWord::Text }
    }
}

/// A listener, `IP:port`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Address(pub SocketAddr);

impl Address {
    const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not IP:port, e.g. 127.0.0.1:7700 or [::1]:7700");
        text.parse().map(Self).map_err(wrong)
    }
}

/// A length of time, written with its unit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Time(pub Duration);

impl Time {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not a time with its unit, e.g. \"500ms\", \"30s\", \"1m 30s\"");
        humantime::parse_duration(&text).map(Self).map_err(wrong)
    }
}

/// Reads the keys without ever quoting one in an error.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyTable>, D::Error> {
    use serde::de::Error;
    let toml::Value::Array(keys) = toml::Value::deserialize(deserializer)? else {
        return Err(D::Error::custom("expected an array of tables"));
    };
    if keys.is_empty() {
        return Err(D::Error::custom("expected at least one key"));
    }
    let read = |(i, key): (usize, toml::Value)| {
        let table =
            key.as_table().cloned().ok_or_else(|| D::Error::custom(format!("key {i}: expected a table")))?;
        table.try_into().map_err(|e: toml::de::Error| D::Error::custom(format!("key {i}: {}", e.message())))
    };
    keys.into_iter().enumerate().map(read).collect()
}
