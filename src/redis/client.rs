//! One supervised connection to one Redis.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::script::{self, Script};
use crate::config::RedisConfig;
use crate::telemetry::metrics;

/// How often an idle connection is probed.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often the server's durability settings are read again.
const SETTINGS_EVERY: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Why a round trip gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// No connection at the moment.
    #[error("redis is not reachable")]
    Down,
    /// No answer in time: whether it was done is unknown.
    #[error("redis did not answer in time")]
    Timeout,
    /// The connection broke or the server answered with an error.
    #[error("redis: {0}")]
    Server(#[from] redis::RedisError),
}

/// What is known of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not connected, or not answering.
    Down,
    /// Connected.
    Up {
        /// Counts connections; another number = it was lost in between.
        generation: u64,
        /// The replication id the server reported, and what a restore named: another one = another
        /// history.
        history: String,
        /// The level its settings confirm for a write: 1 or 2.
        level: u32,
    },
}

/// One script call in a pipeline.
#[derive(Debug)]
pub struct Call {
    command: redis::Cmd,
}

impl Call {
    /// Calls `script` on `keys`; arguments follow by [`Call::arg`].
    #[must_use]
    pub fn new(script: &Script, keys: &[String]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.sha).arg(keys.len()).arg(keys);
        Self { command }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, value: impl redis::ToRedisArgs) -> Self {
        self.command.arg(value);
        self
    }
}

impl From<Call> for redis::Cmd {
    fn from(call: Call) -> Self {
        call.command
    }
}

#[derive(Debug)]
struct Shared {
    client: redis::Client,
    timeout: Duration,
    connection: watch::Sender<Option<MultiplexedConnection>>,
    link: watch::Sender<Link>,
    suspect: Notify,
}

/// A cheap handle; all clones share one connection, whose driver pipelines
/// what they send at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Checks the URL and starts keeping a connection until `stop`.
    pub(crate) fn start(config: &RedisConfig, stop: CancellationToken) -> Result<Self, RedisError> {
        let client = redis::Client::open(config.url.expose())?;
        let shared = Arc::new(Shared {
            client,
            timeout: config.timeout,
            connection: watch::Sender::new(None),
            link: watch::Sender::new(Link::Down),
            suspect: Notify::new(),
        });
        let supervisor = Arc::clone(&shared);
        tokio::spawn(async move { stop.run_until_cancelled(supervise(supervisor)).await });
        Ok(Self { shared })
    }

    /// The state of the connection, to watch.
    #[must_use]
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.shared.link.subscribe()
    }

    /// Deadline of one round trip.
    #[must_use]
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// A subscriber's own connection, within the deadline.
    pub(crate) async fn pubsub(&self) -> Result<redis::aio::PubSub, RedisError> {
        let connect = self.shared.client.get_async_pubsub();
        Ok(timeout(self.shared.timeout.max(Duration::from_secs(1)), connect)
            .await
            .map_err(|_| RedisError::Timeout)??)
    }

    /// Runs commands in one round trip; one result each, in order. Scripts the
    /// server forgot are loaded and the whole pipeline is run again, so every
    /// command in it must be idempotent.
    pub(crate) async fn pipeline(
        &self,
        commands: Vec<redis::Cmd>,
    ) -> Result<Vec<RedisResult<Value>>, RedisError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipe.add_command(command);
        }
        pipe.ignore_errors();
        let results = self.run(&pipe).await?;
        if !results.iter().any(forgot_script) {
            return Ok(results);
        }
        let mut load = Pipeline::new();
        for script in script::all() {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        load.ignore_errors();
        self.run(&load).await?;
        self.run(&pipe).await
    }

    /// Runs one command.
    pub(crate) async fn command<T: FromRedisValue>(
        &self,
        command: impl Into<redis::Cmd>,
    ) -> Result<T, RedisError> {
        let mut results = self.pipeline(vec![command.into()]).await?;
        let value = results.pop().ok_or(RedisError::Down)??;
        Ok(redis::from_redis_value(value).map_err(redis::RedisError::from)?)
    }

    async fn run(&self, pipe: &Pipeline) -> Result<Vec<RedisResult<Value>>, RedisError> {
        let Some(mut connection) = self.shared.connection.borrow().clone() else {
            return Err(RedisError::Down);
        };
        metrics().redis_commands.increment(u64::try_from(pipe.len()).unwrap_or(u64::MAX));
        let answer = timeout(self.shared.timeout, pipe.query_async(&mut connection)).await;
        let error = match answer {
            Ok(Ok(results)) => return Ok(results),
            Ok(Err(error)) => RedisError::Server(error),
            Err(_) => RedisError::Timeout,
        };
        metrics().redis_errors.increment(1);
        self.shared.suspect.notify_one();
        Err(error)
    }
}

/// Whether an answer of the server will be the same next time: a wrong type,
/// a script that fails. A server that is full, loading, or read-only recovers.
pub(crate) fn is_permanent(error: &redis::RedisError) -> bool {
    use redis::ErrorKind::{Parse, Server, UnexpectedReturnType};
    matches!(error.kind(), Parse | UnexpectedReturnType)
        || matches!(error.kind(), Server(redis::ServerErrorKind::ResponseError))
        || matches!(error.code(), Some("WRONGTYPE" | "ERR"))
}

fn forgot_script(result: &RedisResult<Value>) -> bool {
    let kind = match result {
        Err(error) => error.kind(),
        Ok(Value::ServerError(error)) => match error.kind() {
            Some(kind) => redis::ErrorKind::Server(kind),
            None => return false,
        },
        Ok(_) => return false,
    };
    kind == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
}

async fn supervise(shared: Arc<Shared>) {
    let mut generation = 0;
    let mut failures = 0_u32;
    loop {
        match connect(&shared).await {
            Ok((connection, replid, level)) => {
                generation += 1;
                failures = 0;
                info!(generation, level, "redis connected");
                if generation > 1 {
                    metrics().redis_reconnects.increment(1);
                }
                shared.connection.send_replace(Some(connection.clone()));
                shared.link.send_replace(Link::Up { generation, history: replid, level });
                let why = watch_over(&shared, connection).await;
                warn!(error = %why, "redis lost; reconnecting");
                shared.connection.send_replace(None);
                shared.link.send_replace(Link::Down);
            }
            Err(error) => {
                failures += 1;
                // Once at the start of an outage, then about every minute.
                if failures % 64 == 1 {
                    warn!(%error, attempt = failures, "redis not reachable; retrying");
                }
            }
        }
        let ceiling = Duration::from_millis(50).saturating_mul(1 << failures.min(5)).min(MAX_BACKOFF);
        sleep(ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

async fn connect(shared: &Shared) -> Result<(MultiplexedConnection, String, u32), RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(shared.timeout))
        .set_response_timeout(Some(shared.timeout))
        .set_pipeline_buffer_size(1000);
    let connect = shared.client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = timeout(shared.timeout * 2, connect).await.map_err(|_| RedisError::Timeout)??;
    let info: String = ask(shared, &mut connection, redis::cmd("INFO").arg("replication")).await?;
    let replid = field(&info, "master_replid").to_owned();
    if field(&info, "role") != "master" {
        warn!("this redis is a replica: writes will be refused until it is promoted");
    }
    let level = level(shared, &mut connection).await?;
    for script in script::all() {
        let _: Value =
            ask(shared, &mut connection, redis::cmd("SCRIPT").arg("LOAD").arg(script.code)).await?;
    }
    Ok((connection, replid, level))
}

/// Returns when the connection no longer answers, saying why.
async fn watch_over(shared: &Shared, mut connection: MultiplexedConnection) -> RedisError {
    let mut settings_at = Instant::now();
    loop {
        let _ = timeout(PING_EVERY, shared.suspect.notified()).await;
        let ping: Result<String, _> = ask(shared, &mut connection, &redis::cmd("PING")).await;
        // LOADING and the like are errors too: such a server serves nothing.
        if let Err(error) = ping {
            return error;
        }
        if settings_at.elapsed() >= SETTINGS_EVERY {
            settings_at = Instant::now();
            match level(shared, &mut connection).await {
                Err(error) => return error,
                Ok(now) => {
                    shared.link.send_if_modified(|link| match link {
                        Link::Up { level, .. } if *level != now => {
                            warn!(before = *level, now, "redis durability level changed");
                            *level = now;
                            true
                        }
                        _ => false,
                    });
                }
            }
        }
    }
}

async fn ask<T: FromRedisValue>(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    command: &redis::Cmd,
) -> Result<T, RedisError> {
    Ok(timeout(shared.timeout, command.query_async(connection)).await.map_err(|_| RedisError::Timeout)??)
}

/// Level 2 needs every write on disk before its reply, and no eviction; what
/// cannot be read counts as not confirmed.
async fn level(shared: &Shared, connection: &mut MultiplexedConnection) -> Result<u32, RedisError> {
    let mut durable = true;
    for (key, wanted) in
        [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")]
    {
        let answer = ask::<Vec<String>>(shared, connection, redis::cmd("CONFIG").arg("GET").arg(key)).await;
        match answer {
            Ok(pair) => durable &= pair.get(1).is_some_and(|value| value == wanted),
            Err(RedisError::Server(error)) if !error.is_io_error() => durable = false,
            Err(error) => return Err(error),
        }
    }
    Ok(if durable { 2 } else { 1 })
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
}
