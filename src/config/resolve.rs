//! From what was written to what is used.
//!
//! Ranges, and what keys demand of each other, are checked here; every fault
//! is collected and resolving goes on with the value as it is, because the
//! result is thrown away anyway.

mod access;
mod storage;

use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::error::{ConfigError, ConfigErrors};
use super::file::{File, FormatWord, GroupsTable, LimitsTable, PresenceTable, Time, VisibilityWord};
use super::layers::{CONFIG_VARIABLE, Layers, Origins};
use super::{AuthConfig, Config, Groups, Limits, Presence, Visibility};
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

    fn groups(&mut self, table: &GroupsTable) -> Groups {
        Groups {
            push_members: self.within("groups.push_members", table.push_members, 0..=10_000_000),
            push_rate: self.within("groups.push_rate", table.push_rate, 1..=1_000_000),
            pull_spread: self.time("groups.pull_spread", table.pull_spread, 0..=60_000),
            receipt_members: self.within("groups.receipt_members", table.receipt_members, 0..=10_000),
        }
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

/// As browsers write it: lower case, without path.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    !host.is_empty() && host.bytes().all(allowed)
}
