//! How durable a write is: what this Redis confirms, and how it is asked.
//!
//! | level | confirmed by |
//! |---|---|
//! | 1 | the reply |
//! | 2 | the reply, with `appendfsync always`; else `WAITAOF 1 0` |
//! | 3 | `WAITAOF 1 n`; else the reply with `appendfsync always`, and `WAIT n` |
//!
//! Levels 2 and 3 need `appendonly yes`, `no-appendfsync-on-rewrite no` and
//! `maxmemory-policy noeviction`. What cannot be read counts as not confirmed.
//!
//! `WAITAOF` is believed only where it was seen to wait ([`PROBE_ROUNDS`]):
//! with `appendfsync everysec` there is one fsync a second, so some writes
//! that are confirmed one after the other take seconds. Some versions confirm
//! at once (redis/redis#13793), others do not know the command.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use tokio::time::Instant;

use super::RedisError;
use crate::config::Durability;

/// A write that is not confirmed within this is unconfirmed.
pub(super) const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// Writes of a probe, confirmed one after the other; between the first and
/// the last one lie two fsyncs at least, a second apart each.
const PROBE_ROUNDS: usize = 3;
const PROBE_TAKES: Duration = Duration::from_millis(1_500);

/// How a write is confirmed beyond its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: the reply says it.
    Nothing,
    /// On the disk here and of so many replicas.
    Aof(u32),
    /// In the memory of so many replicas.
    Replicas(u32),
}

impl Wait {
    fn command(self) -> redis::Cmd {
        let within = CONFIRM_WITHIN.as_millis().to_string();
        let mut command = redis::cmd(if matches!(self, Self::Aof(_)) { "WAITAOF" } else { "WAIT" });
        match self {
            Self::Nothing => command.arg(0),
            Self::Aof(replicas) => command.arg(1).arg(replicas),
            Self::Replicas(replicas) => command.arg(replicas),
        };
        command.arg(within);
        command
    }

    /// On a timeout the server answers all the same, with lower numbers.
    fn is_reached(self, answer: RedisResult<Value>) -> Result<bool, redis::RedisError> {
        let answer = answer.and_then(Value::extract_error)?;
        Ok(match self {
            Self::Nothing => true,
            Self::Aof(replicas) => {
                let (here, there): (u32, u32) = redis::from_redis_value(answer)?;
                here >= 1 && there >= replicas
            }
            Self::Replicas(replicas) => redis::from_redis_value::<u32>(answer)? >= replicas,
        })
    }
}

/// What stands behind an ack at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assurance {
    /// The level that is confirmed.
    pub level: u32,
    /// What it takes beyond the reply.
    pub wait: Wait,
    /// Why nothing is appended: less than the configured level is confirmed.
    pub short: Option<String>,
    /// `false` = it is still being tried whether there is more.
    pub settled: bool,
}

/// What the server was seen to do, at best by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Unknown,
    No,
    Yes,
}

/// The settings that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Some acknowledged writes may never reach it.
    Never,
    /// Within about a second.
    Soon,
    /// Before the reply.
    Always,
}

impl Disk {
    /// Of what CONFIG GET answered.
    pub(super) fn of(settings: &HashMap<String, String>) -> Self {
        let is = |key: &str, value: &str| settings.get(key).is_some_and(|is| is == value);
        let kept = is("appendonly", "yes")
            && is("no-appendfsync-on-rewrite", "no")
            && is("maxmemory-policy", "noeviction");
        match settings.get("appendfsync").map(String::as_str) {
            Some("always") if kept => Self::Always,
            Some("everysec") if kept => Self::Soon,
            _ => Self::Never,
        }
    }
}

/// Asks for them.
pub(super) fn settings() -> redis::Cmd {
    let mut get = redis::cmd("CONFIG");
    get.arg(&["GET", "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy"]);
    get
}

/// What is known of a server, by its settings and by trying.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) disk: Disk,
    /// Whether WAITAOF waits for an fsync.
    pub(super) waitaof: Seen,
    /// Whether it is confirmed by enough replicas.
    pub(super) replicas: Option<Wait>,
}

impl Known {
    /// Whether WAITAOF is worth a try.
    pub(super) fn lacks_probe(self, wanted: Durability) -> bool {
        self.disk == Disk::Soon && self.waitaof == Seen::Unknown && wanted.level != Some(1)
    }

    /// What stands behind an ack.
    pub(super) fn assurance(self, wanted: Durability, settled: bool) -> Assurance {
        let (local, wait) = match (self.disk, self.waitaof) {
            (Disk::Always, _) => (2, Wait::Nothing),
            (Disk::Soon, Seen::Yes) => (2, Wait::Aof(0)),
            _ => (1, Wait::Nothing),
        };
        let (level, wait) = match (wanted.level, self.replicas) {
            (Some(1), _) => (1, Wait::Nothing),
            (Some(3), Some(wait)) if local == 2 => (3, wait),
            _ => (local, wait),
        };
        let short = wanted
            .level
            .filter(|configured| level < *configured)
            .map(|configured| format!("store.level {configured} is configured, this Redis confirms {level}"));
        Assurance { level, wait, short, settled }
    }
}

/// Writes `key`, and waits until that and all that was written before it are
/// confirmed; returns INFO's `replication` behind it.
pub(super) async fn confirmed(
    connection: &mut MultiplexedConnection,
    key: &str,
    wait: Wait,
) -> Result<(bool, String), RedisError> {
    let mut pipe = Pipeline::with_capacity(3);
    pipe.cmd("SET").arg(key).arg(fastrand::u32(..));
    pipe.add_command(wait.command());
    pipe.cmd("INFO").arg("replication").ignore_errors();
    let replies: Vec<RedisResult<Value>> =
        tokio::time::timeout(CONFIRM_WITHIN * 2, pipe.query_async(connection))
            .await
            .map_err(|_| RedisError::Timeout)??;
    let mut replies = replies.into_iter();
    let mut next = || replies.next().ok_or(RedisError::Down);
    next()?.and_then(Value::extract_error)?;
    let reached = wait.is_reached(next()?)?;
    let info = next()?.and_then(Value::extract_error)?;
    Ok((reached, redis::from_redis_value(info).map_err(redis::RedisError::from)?))
}

/// Whether WAITAOF waits for an fsync, with `appendfsync everysec`.
pub(super) async fn probe(connection: &mut MultiplexedConnection, key: &str) -> Result<Seen, RedisError> {
    let mut first = None;
    for _ in 0..PROBE_ROUNDS {
        match confirmed(connection, key, Wait::Aof(0)).await {
            Ok((true, _)) => {}
            Ok((false, _)) => return Ok(Seen::Unknown),
            Err(RedisError::Server(error)) if !error.is_io_error() => return Ok(Seen::No),
            Err(error) => return Err(error),
        }
        first.get_or_insert_with(Instant::now);
    }
    let waited = first.is_some_and(|first| first.elapsed() >= PROBE_TAKES);
    Ok(if waited { Seen::Yes } else { Seen::No })
}

/// How enough replicas confirm a write, if they do.
pub(super) async fn replicas(
    connection: &mut MultiplexedConnection,
    key: &str,
    disk: Disk,
    replicas: u32,
) -> Result<Option<Wait>, RedisError> {
    let waits = [Wait::Aof(replicas), Wait::Replicas(replicas)];
    // In memory is enough there only where it is on the disk here.
    for wait in waits.into_iter().take(if disk == Disk::Always { 2 } else { 1 }) {
        match confirmed(connection, key, wait).await {
            Ok((true, _)) => return Ok(Some(wait)),
            Ok((false, _)) => {}
            Err(RedisError::Server(error)) if !error.is_io_error() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(level: Option<u32>) -> Durability {
        Durability { level, replicas: 1 }
    }

    #[test]
    fn what_is_not_read_is_not_confirmed() {
        let all = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory-policy", "noeviction"),
        ];
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(Disk::of(&map(&all)), Disk::Always);
        for left_out in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(left_out);
            assert_eq!(Disk::of(&map(&some)), Disk::Never, "without {:?}", all[left_out]);
        }
        let mut soon = all;
        soon[1].1 = "everysec";
        assert_eq!(Disk::of(&map(&soon)), Disk::Soon);
        soon[1].1 = "no";
        assert_eq!(Disk::of(&map(&soon)), Disk::Never);
    }

    #[test]
    fn a_level_and_what_it_takes() {
        use Disk::{Always, Never, Soon};
        use Seen::{No, Unknown, Yes};
        let enough = Some(Wait::Aof(1));
        // Disk, WAITAOF, replicas, configured -> level, wait, refused
        for (disk, waitaof, replicas, configured, level, wait, refused) in [
            (Always, Unknown, None, None, 2, Wait::Nothing, false),
            (Soon, Yes, None, None, 2, Wait::Aof(0), false),
            (Soon, No, None, None, 1, Wait::Nothing, false),
            (Soon, Unknown, None, None, 1, Wait::Nothing, false),
            (Never, Yes, enough, None, 1, Wait::Nothing, false),
            (Always, Yes, enough, Some(1), 1, Wait::Nothing, false),
            (Always, Unknown, None, Some(2), 2, Wait::Nothing, false),
            (Soon, No, None, Some(2), 1, Wait::Nothing, true),
            (Always, Unknown, Some(Wait::Replicas(1)), Some(3), 3, Wait::Replicas(1), false),
            (Soon, Yes, enough, Some(3), 3, Wait::Aof(1), false),
            (Soon, No, enough, Some(3), 1, Wait::Nothing, true),
            (Always, Yes, None, Some(3), 2, Wait::Nothing, true),
        ] {
            let is = Known { disk, waitaof, replicas }.assurance(wanted(configured), true);
            assert_eq!(
                (is.level, is.wait, is.short.is_some()),
                (level, wait, refused),
                "{disk:?} {waitaof:?}"
            );
        }
        let short = Known { disk: Never, waitaof: No, replicas: None }.assurance(wanted(Some(3)), true).short;
        assert_eq!(short.as_deref(), Some("store.level 3 is configured, this Redis confirms 1"));
    }
}
