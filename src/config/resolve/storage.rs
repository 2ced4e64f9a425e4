//! Where things are kept, how safely, and for how long.

use redis::IntoConnectionInfo;

use super::Resolver;
use crate::analytics::Zone;
use crate::config::file::{
    AnalyticsTable, DauWord, LevelWord, PresenceTable, RedisTable, RetentionTable, StoreTable, Time,
};
use crate::config::{Analytics, Durability, Keep, PostgresConfig, RedisConfig, Retention, Secret};

impl Resolver {
    pub(super) fn redis(&mut self, table: RedisTable) -> Option<RedisConfig> {
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

    pub(super) fn durability(&mut self, table: &StoreTable, alone: bool) -> Durability {
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

    pub(super) fn retention(&mut self, table: &RetentionTable) -> Retention {
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

    pub(super) fn analytics(&mut self, table: AnalyticsTable, presence: &PresenceTable) -> Analytics {
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

    pub(super) fn postgres(&mut self, url: Option<Secret>, source: String) -> Option<PostgresConfig> {
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
}
