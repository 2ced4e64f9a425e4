//! From what was written to what is used.
//!
//! Ranges, and what keys demand of each other, are checked here; every fault
//! is collected and resolving goes on with the value as it is, because the
//! result is thrown away anyway.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::IntoConnectionInfo;
use tracing_subscriber::EnvFilter;

use super::error::{ConfigError, ConfigErrors};
use super::file::{
    AdminTable, AnalyticsTable, AuthTable, DauWord, File, FormatWord, GroupsTable, KeyTable, LevelWord,
    LimitsTable, ModeWord, PresenceTable, RedisTable, RetentionTable, StoreTable, Time, VisibilityWord,
};
use super::layers::{CONFIG_VARIABLE, Layers, Origins};
use super::{
    Analytics, AuthConfig, Config, Durability, Groups, JwtAlgorithm, JwtConfig, JwtKey, Keep, Limits,
    PostgresConfig, Presence, RedisConfig, Retention, Secret, Visibility,
};
use crate::analytics::Zone;
use crate::types::GatewayId;

/// What was typed on the command line, not yet looked at.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// WebSocket listener [default: 127.0.0.1:7700].
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Admin and metrics listener [default: 127.0.0.1:7701].
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// Redis to share with other gateways [default: none].
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Name of this gateway [default: drawn once and kept].
    #[arg(long, value_name = "NAME")]
    pub gateway_id: Option<String>,
    /// Directory of what must survive a restart [default: ./tidegate-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The data directory was brought back from a backup: clients are to
    /// notice that messages may be missing.
    #[arg(long)]
    pub restored: bool,
    /// Let anybody who reaches a listener beyond loopback be any user.
    #[arg(long)]
    pub insecure_auth_none: bool,
}

/// Builds the configuration out of `flags`, the environment (other variables
/// than `TIDEGATE_…` are ignored), the file that one of them names, and the
/// defaults. Reads files, touches nothing else.
pub fn resolve(
    flags: &Flags,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let env: Vec<_> = env.into_iter().collect();
    let named_by_env =
        || env.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|(_, path)| Path::new(path));
    let mut layers = Layers::default();
    if let Some(path) = flags.config.as_deref().or_else(named_by_env) {
        layers.file(path);
    }
    layers.environment(env);
    layers.flag("--listen", &["listen"], flags.listen.as_deref());
    layers.flag("--admin", &["admin", "listen"], flags.admin.as_deref());
    layers.flag("--redis", &["redis", "url"], flags.redis.as_deref());
    layers.flag("--gateway-id", &["gateway_id"], flags.gateway_id.as_deref());
    layers.flag("--data-dir", &["data_dir"], flags.data_dir.as_deref());

    let (file, origins, errors) = layers.finish();
    let mut resolver = Resolver { origins, errors };
    let mut config = resolver.config(file, flags.insecure_auth_none);
    config.restored = flags.restored;
    ConfigErrors::check(resolver.errors).map(|()| config)
}

struct Resolver {
    origins: Origins,
    errors: Vec<ConfigError>,
}

impl Resolver {
    fn config(&mut self, file: File, insecure: bool) -> Config {
        let listen = file.listen.0;
        let admin = file.admin.listen.0;
        if listen == admin && listen.port() != 0 {
            self.fault("admin.listen", format!("{admin} is the WebSocket listener's address too"));
        }
        if file.data_dir.as_os_str() == OsStr::new("") {
            self.fault("data_dir", "must not be empty");
        }
        for origin in &file.origins {
            if !is_origin(origin) {
                self.fault(
                    "origins",
                    format!("`{origin}` is not scheme://host[:port], e.g. https://chat.example"),
                );
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let admin_api_key = self.admin_api_key(&file.admin);
        let auth = self.auth(file.auth);
        let alone = file.redis.url.is_none();
        if matches!(auth, AuthConfig::None) && !insecure {
            self.loopback_only("listen", listen);
            self.loopback_only("admin.listen", admin);
        }
        Config {
            listen,
            admin,
            admin_api_key,
            redis: self.redis(file.redis),
            gateway_id: file.gateway_id.and_then(|id| self.good("gateway_id", GatewayId::new(&id))),
            data_dir: file.data_dir,
            restored: false,
            workers: file.workers.map_or(cores, |n| self.within("workers", n, 1..=1024)),
            auth,
            origins: file.origins,
            limits: self.limits(&file.limits),
            durability: self.durability(&file.store, alone),
            retention: self.retention(&file.retention),
            groups: self.groups(&file.groups),
            analytics: self.analytics(file.analytics, &file.presence),
            presence: self.presence(&file.presence, file.heartbeat.interval),
            heartbeat: self.time("heartbeat.interval", file.heartbeat.interval, 1_000..=35_000),
            route_refresh: self.time("route.refresh", file.route.refresh, 1_000..=50_000),
            handover_pause: self.time("handover.pause", file.handover.pause, 100..=30_000),
            drain: self.time("handover.drain", file.handover.drain, 1_000..=600_000),
            log_filter: self.log_filter(file.log.filter),
            log_json: file.log.format == FormatWord::Json,
        }
    }

    fn admin_api_key(&mut self, admin: &AdminTable) -> Option<Secret> {
        let key = self.secret(
            "admin.api_key",
            admin.api_key.as_ref(),
            "admin.api_key_file",
            admin.api_key_file.as_deref(),
        );
        if let Some(key) = &key {
            let key = key.expose();
            if !(16..=256).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
                self.fault("admin.api_key", "an API key has 16 to 256 visible ASCII characters");
            }
        } else if !is_loopback(admin.listen.0)
            && !self.origins.configured("admin.api_key")
            && !self.origins.configured("admin.api_key_file")
        {
            let message =
                format!("{} is not loopback: set admin.api_key or admin.api_key_file", admin.listen.0);
            self.fault("admin.listen", message);
        }
        key
    }

    fn redis(&mut self, table: RedisTable) -> Option<RedisConfig> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        if table.prefix.len() > 32 || !table.prefix.bytes().all(allowed) {
            self.fault("redis.prefix", "a prefix is up to 32 characters of [A-Za-z0-9_.:-]");
        }
        let timeout = self.time("redis.timeout", table.timeout, 10..=30_000);
        let url = table.url?;
        let scheme = url.expose().split_once("://").map(|(scheme, _)| scheme);
        let form = "expected redis://[user:password@]host[:port][/db]";
        match scheme {
            Some("redis") if url.expose().into_connection_info().is_ok() => {}
            Some(scheme @ ("rediss" | "redis+sentinel" | "redis+cluster")) => {
                self.fault("redis.url", format!("{scheme}:// is not built yet; {form}"));
            }
            _ => self.fault("redis.url", form),
        }
        Some(RedisConfig { url, prefix: table.prefix, timeout })
    }

    fn auth(&mut self, table: AuthTable) -> AuthConfig {
        let leeway = self.time("auth.leeway", table.leeway, 0..=300_000);
        for (key, value) in [("auth.issuer", &table.issuer), ("auth.audience", &table.audience)] {
            if value.as_deref() == Some("") {
                self.fault(key, "must not be empty");
            }
        }
        let written = self.origins.configured("auth.keys");
        let keys: Vec<_> =
            table.keys.into_iter().enumerate().filter_map(|(i, key)| self.key(i, key)).collect();
        for (i, key) in keys.iter().enumerate() {
            if key.kid.is_some() && keys.iter().take(i).any(|other| other.kid == key.kid) {
                self.fault("auth.keys", format!("key {i}: another key has the same kid"));
            }
        }
        match table.mode {
            ModeWord::Jwt if !written => {
                self.fault("auth.mode", "\"jwt\" needs at least one of [[auth.keys]]")
            }
            ModeWord::None if written && !self.origins.configured("auth.mode") => {
                self.fault("auth.keys", "keys are used with auth.mode = \"jwt\" only; set auth.mode");
            }
            _ => {}
        }
        match table.mode {
            ModeWord::None => AuthConfig::None,
            ModeWord::Jwt => {
                AuthConfig::Jwt(JwtConfig { keys, issuer: table.issuer, audience: table.audience, leeway })
            }
        }
    }

    fn key(&mut self, i: usize, table: KeyTable) -> Option<JwtKey> {
        let symmetric = table.algorithm == JwtAlgorithm::Hs256;
        let secret = (table.secret, table.secret_file);
        let public = (table.public_key, table.public_key_file);
        let ((text, file), (no_text, no_file), word) =
            if symmetric { (secret, public, "secret") } else { (public, secret, "public_key") };
        let algorithm = table.algorithm.as_str();
        let material = match (text, file) {
            _ if no_text.is_some() || no_file.is_some() => {
                Err(format!("{algorithm} takes {word} or {word}_file only"))
            }
            (Some(text), None) => Ok(text),
            (None, Some(path)) => read_secret(&path),
            _ => Err(format!("{algorithm} needs one of {word} and {word}_file")),
        };
        let key = material.and_then(|material| {
            let key = JwtKey { algorithm: table.algorithm, kid: table.kid, material };
            key.decoding_key().map_err(|error| error.to_string())?;
            Ok(key)
        });
        self.good("auth.keys", key.map_err(|message| format!("key {i}: {message}")))
    }

    fn limits(&mut self, table: &LimitsTable) -> Limits {
        let max_frame_bytes = self.within("limits.max_frame_bytes", table.max_frame_bytes, 1024..=16 << 20);
        let outbox_bytes = self.within("limits.outbox_bytes", table.outbox_bytes, 4096..=1 << 30);
        if outbox_bytes < max_frame_bytes {
            let message = format!(
                "{outbox_bytes} is below limits.max_frame_bytes, {max_frame_bytes}: no such frame would fit"
            );
            self.fault("limits.outbox_bytes", message);
        }
        let rate = self.within("limits.frames_per_second", table.frames_per_second, 0..=1_000_000);
        Limits {
            max_frame_bytes,
            outbox_bytes,
            outbox_frames: self.within("limits.outbox_frames", table.outbox_frames, 16..=1_000_000),
            max_connections: self.within("limits.max_connections", table.max_connections, 1..=10_000_000),
            handshake: self.time("limits.handshake", table.handshake, 100..=60_000),
            message: self.time("limits.message", table.message, 1_000..=600_000),
            frames_per_second: (rate > 0).then_some(rate),
            limit_loopback: self.origins.configured("limits.frames_per_second"),
            send_wait: self.time("limits.send_wait", table.send_wait, 100..=30_000),
        }
    }

    fn durability(&mut self, table: &StoreTable, alone: bool) -> Durability {
        if alone && table.level == LevelWord::Three {
            self.fault("store.level", "\"3\" needs a Redis with a replica; alone there is none");
        }
        let level = match table.level {
            LevelWord::Auto => None,
            LevelWord::One => Some(1),
            LevelWord::Two => Some(2),
            LevelWord::Three => Some(3),
        };
        Durability { level, replicas: self.within("store.replicas", table.replicas, 1..=16) }
    }

    fn retention(&mut self, table: &RetentionTable) -> Retention {
        let mut keep = |age_key, age: Time, count| {
            const HOUR: u64 = 3_600_000;
            let age =
                if age.0.is_zero() { None } else { Some(self.time(age_key, age, HOUR..=3_650 * 24 * HOUR)) };
            Keep { age, count: Some(count).filter(|count| *count > 0) }
        };
        Retention {
            p2p: keep("retention.p2p_age", table.p2p_age, table.p2p_count),
            group: keep("retention.group_age", table.group_age, table.group_count),
        }
    }

    fn groups(&mut self, table: &GroupsTable) -> Groups {
        Groups {
            push_members: self.within("groups.push_members", table.push_members, 0..=10_000_000),
            push_rate: self.within("groups.push_rate", table.push_rate, 1..=1_000_000),
            pull_spread: self.time("groups.pull_spread", table.pull_spread, 0..=60_000),
            receipt_members: self.within("groups.receipt_members", table.receipt_members, 0..=10_000),
        }
    }

    fn analytics(&mut self, table: AnalyticsTable, presence: &PresenceTable) -> Analytics {
        const DAY: u64 = 24 * 3_600_000;
        let zone = self.good("analytics.time_zone", Zone::parse(&table.time_zone));
        Analytics {
            zone: zone.unwrap_or_else(Zone::utc),
            log_age: self.time("analytics.log_age", table.log_age, DAY..=3_650 * DAY),
            log_count: self.within("analytics.log_count", table.log_count, 1_000..=1_000_000_000),
            postgres: self.postgres(table.postgres_url, table.postgres_source),
            geo_database: table.geo_database,
            exact: presence.dau == DauWord::Exact,
            sample_every: self.time("presence.sample_every", presence.sample_every, 1_000..=3_600_000),
            history_age: self.time("presence.history_age", presence.history_age, DAY..=3_650 * DAY),
        }
    }

    fn postgres(&mut self, url: Option<Secret>, source: String) -> Option<PostgresConfig> {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
        if !(1..=64).contains(&source.len()) || !source.bytes().all(is_name) {
            self.fault("analytics.postgres_source", "must be 1-64 characters of [A-Za-z0-9_.-]");
        }
        let url = url?;
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            self.fault("analytics.postgres_url", "must be postgres://user:password@host/database");
        }
        if !cfg!(feature = "postgres") {
            let message = "this program was built without it: cargo build --release --features postgres";
            self.fault("analytics.postgres_url", message);
        }
        Some(PostgresConfig { url, source })
    }

    fn presence(&mut self, table: &PresenceTable, heartbeat: Time) -> Presence {
        let window = self.time("presence.window", table.window, 3_000..=3_600_000);
        if window < heartbeat.0.saturating_mul(3) {
            let [window, heartbeat] = [window, heartbeat.0].map(humantime::format_duration);
            let message = format!(
                "{window} is below three times heartbeat.interval, {heartbeat}: users would be offline between two heartbeats"
            );
            self.fault("presence.window", message);
        }
        let grace = self.time("presence.grace", table.grace, 0..=60_000);
        if grace >= window {
            self.fault("presence.grace", "must be below presence.window");
        }
        Presence {
            enabled: table.enabled,
            window,
            grace,
            visibility: match table.visibility {
                VisibilityWord::Conversation => Visibility::Conversation,
                VisibilityWord::All => Visibility::All,
                VisibilityWord::None => Visibility::None,
            },
            max_watched: self.within("presence.max_watched", table.max_watched, 1..=100_000),
        }
    }

    fn log_filter(&mut self, filter: String) -> String {
        if filter.trim().is_empty() || EnvFilter::builder().parse(&filter).is_err() {
            self.fault("log.filter", "expected a level or target=level pairs, e.g. info,tidegate=debug");
        }
        filter
    }

    /// The one of two ways to give a secret that was used.
    fn secret(
        &mut self,
        key: &str,
        text: Option<&Secret>,
        file_key: &str,
        file: Option<&Path>,
    ) -> Option<Secret> {
        match (text, file) {
            (Some(_), Some(_)) => {
                let message = format!("set one of this and {}, not both", self.origins.of(file_key));
                self.fault(key, message);
                None
            }
            (Some(text), None) => Some(text.clone()),
            (None, Some(path)) => self.good(file_key, read_secret(path)),
            (None, None) => None,
        }
    }

    fn loopback_only(&mut self, key: &str, address: SocketAddr) {
        if !is_loopback(address) {
            let message = format!(
                "{address} is not loopback and auth.mode is \"none\": set auth.mode = \"jwt\", \
                 or pass --insecure-auth-none to let anybody be any user"
            );
            self.fault(key, message);
        }
    }

    fn within<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) -> T {
        if !range.contains(&value) {
            self.fault(key, format!("{value} is not within {} to {}", range.start(), range.end()));
        }
        value
    }

    /// `range` is in milliseconds.
    fn time(&mut self, key: &str, value: Time, range: RangeInclusive<u64>) -> Duration {
        let (least, most) = (Duration::from_millis(*range.start()), Duration::from_millis(*range.end()));
        if !(least..=most).contains(&value.0) {
            let [value, least, most] = [value.0, least, most].map(humantime::format_duration);
            self.fault(key, format!("{value} is not within {least} to {most}"));
        }
        value.0
    }

    fn good<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.fault(key, error.to_string())).ok()
    }

    fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { origin: self.origins.of(key).to_owned(), message: message.into() });
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// As browsers write it: lower case, without path.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    !host.is_empty() && host.bytes().all(allowed)
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(Secret::new(text)) }
}
