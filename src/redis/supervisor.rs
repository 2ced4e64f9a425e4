//! Connects, watches, and connects again, however long it takes.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::RedisError;
use super::client::{Link, Shared};
use super::durability::{Known, Seen};
use super::keeper::{self, Keeper, Request};
use super::script;
use super::server::{self, Server};
use crate::telemetry::metrics;

/// How often a connection is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// Waits for a confirmation that are not under way yet.
const REQUESTS: usize = 1024;

/// One connection, as long as it lasts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u64,
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Server,
    /// What names the history beside the replication id.
    restored: String,
    pub(super) requests: mpsc::Sender<Request>,
}

pub(super) async fn supervise(shared: Arc<Shared>, mut restored: bool) {
    let (mut generation, mut failures) = (0, 0_u32);
    let mut honest = None;
    loop {
        let (requests, asked) = mpsc::channel(REQUESTS);
        match connect(&shared, generation + 1, requests, &mut restored).await {
            Ok((session, disk)) => {
                (generation, failures) = (session.generation, 0);
                let seen = honest.as_ref() == Some(&session.server.run_id);
                let waitaof = if seen { Seen::Yes } else { Seen::Unknown };
                let known = Known { disk, waitaof, replicas: None };
                let assurance = known.assurance(shared.durability, false);
                info!(generation, "redis connected");
                if generation > 1 {
                    metrics().redis_reconnects.increment(1);
                }
                metrics().ack_level.set(assurance.level);
                let history = format!("{}.{}", session.server.replid, session.restored);
                let session = Arc::new(session);
                shared.refusal.send_replace(None);
                shared.session.send_replace(Some(Arc::clone(&session)));
                shared.link.send_replace(Link::Up { generation, history, assurance });
                let keeper =
                    Keeper { shared: &shared, session: &session, known, settled: false, honest: &mut honest };
                let why = tokio::select! {
                    why = watch_over(&shared, &session) => why,
                    why = keeper.keep(asked) => why,
                };
                warn!(error = %why, "redis lost; reconnecting");
                shared.session.send_replace(None);
                shared.link.send_replace(Link::Down);
            }
            Err(error) => {
                failures += 1;
                // Once at the start of an outage, then about every minute.
                if failures % 64 == 1 {
                    match &error {
                        RedisError::TooOld(_) => error!(%error, "redis cannot be used"),
                        _ => warn!(%error, attempt = failures, "redis not reachable; retrying"),
                    }
                }
                shared.refusal.send_replace(Some(error));
            }
        }
        let ceiling = Duration::from_millis(50).saturating_mul(1 << failures.min(5)).min(MAX_BACKOFF);
        sleep(ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// A connection to a primary that is not too old.
pub(super) async fn open(
    shared: &Shared,
    response: Duration,
) -> Result<(MultiplexedConnection, Server), RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(shared.timeout))
        .set_response_timeout(Some(response))
        .set_pipeline_buffer_size(1000);
    let connect = shared.client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = timeout(shared.timeout * 2, connect).await.map_err(|_| RedisError::Timeout)??;
    let info: String =
        ask(shared, &mut connection, redis::cmd("INFO").arg("server").arg("replication")).await?;
    let server = Server::parse(&info)?;
    Ok((connection, server))
}

async fn connect(
    shared: &Shared,
    generation: u64,
    requests: mpsc::Sender<Request>,
    restored: &mut bool,
) -> Result<(Session, super::durability::Disk), RedisError> {
    let (mut connection, server) = open(shared, shared.timeout).await?;
    if *restored {
        let mut draw = redis::cmd("SET");
        draw.arg(shared.keys.restored()).arg(format!("{:016x}", fastrand::u64(..)));
        let _: Value = ask(shared, &mut connection, &draw).await?;
        *restored = false;
        warn!("the data were restored: every conversation gets another epoch");
    }
    let restored = read_restored(shared, &mut connection).await?;
    let disk = keeper::read_disk(shared, &mut connection).await?;
    for script in script::all() {
        let _: Value =
            ask(shared, &mut connection, redis::cmd("SCRIPT").arg("LOAD").arg(script.code)).await?;
    }
    Ok((Session { generation, connection, server, restored, requests }, disk))
}

async fn read_restored(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
) -> Result<String, RedisError> {
    let restored: Option<String> =
        ask(shared, connection, redis::cmd("GET").arg(shared.keys.restored())).await?;
    Ok(restored.unwrap_or_default())
}

/// Returns when the connection no longer answers, or is not to the primary of
/// the same history any more, saying why.
async fn watch_over(shared: &Shared, session: &Session) -> RedisError {
    let mut connection = session.connection.clone();
    loop {
        let _ = timeout(PROBE_EVERY, shared.suspect.notified()).await;
        // LOADING and the like are errors too: such a server serves nothing.
        let same = async {
            let info: String = ask(shared, &mut connection, redis::cmd("INFO").arg("replication")).await?;
            let replid = server::primary(&info)?;
            let restored = read_restored(shared, &mut connection).await?;
            Ok(replid == session.server.replid && restored == session.restored)
        };
        match same.await {
            Ok(true) => {}
            Ok(false) => return RedisError::OtherHistory,
            Err(error) => return error,
        }
    }
}

/// Runs one command, within the deadline.
pub(super) async fn ask<T: FromRedisValue>(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    command: &redis::Cmd,
) -> Result<T, RedisError> {
    let answer: RedisResult<T> =
        timeout(shared.timeout, command.query_async(connection)).await.map_err(|_| RedisError::Timeout)?;
    Ok(answer?)
}
