//! The handle on one Redis: round trips over one supervised connection.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::durability::{Assurance, CONFIRM_WITHIN, Wait};
use super::error::{code, ends_session, forgot_script};
use super::gather::Gather;
use super::keeper::Request;
use super::supervisor::{Session, supervise};
use super::{Keys, RedisError, script};
use crate::config::{Durability, RedisConfig};
use crate::telemetry::metrics;

/// What is known of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not connected, not answering, or not to a primary.
    Down,
    /// Connected.
    Up {
        /// Counts connections; another number = it was lost in between.
        generation: u64,
        /// Names what the server has gone through: another one = acked
        /// messages may be lost.
        history: String,
        /// What stands behind an ack.
        assurance: Assurance,
    },
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: redis::Client,
    pub(super) keys: Keys,
    pub(super) timeout: Duration,
    pub(super) durability: Durability,
    pub(super) session: watch::Sender<Option<Arc<Session>>>,
    pub(super) link: watch::Sender<Link>,
    /// Why the last attempt to connect failed.
    pub(super) refusal: watch::Sender<Option<RedisError>>,
    pub(super) suspect: Notify,
    gather: Arc<Gather>,
}

impl Shared {
    /// Tells what stands behind an ack from now on.
    pub(super) fn assure(&self, now: &Assurance) {
        self.link.send_if_modified(|link| {
            let Link::Up { assurance, .. } = link else { return false };
            if assurance == now {
                return false;
            }
            metrics().ack_level.set(now.level);
            match &now.short {
                _ if !now.settled => {}
                Some(short) => warn!("{short}: sends are refused until it does"),
                None if now.level < 2 => warn!(
                    level = now.level,
                    "sends are acknowledged below level 2: this Redis does not have each write on disk first (appendfsync always, or a WAITAOF that waits; noeviction)"
                ),
                None => info!(level = now.level, "level of acknowledgements"),
            }
            assurance.clone_from(now);
            true
        });
    }
}

/// A cheap handle; all clones share one connection, whose driver pipelines
/// what they send at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Checks the URL and starts keeping a connection until `stop`. Data that
    /// were `restored` from a backup get another history, once.
    pub(crate) fn start(
        config: &RedisConfig,
        durability: Durability,
        restored: bool,
        stop: CancellationToken,
    ) -> Result<Self, RedisError> {
        let shared = Arc::new(Shared {
            client: redis::Client::open(config.url.expose())?,
            keys: Keys::new(&config.prefix),
            timeout: config.timeout,
            durability,
            session: watch::Sender::new(None),
            link: watch::Sender::new(Link::Down),
            refusal: watch::Sender::new(None),
            suspect: Notify::new(),
            gather: Arc::default(),
        });
        let supervisor = Arc::clone(&shared);
        tokio::spawn(async move { stop.run_until_cancelled(supervise(supervisor, restored)).await });
        Ok(Self { shared })
    }

    /// The state of the connection, to watch.
    #[must_use]
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.shared.link.subscribe()
    }

    /// Waits until it is known what stands behind an ack; while Redis is down
    /// that takes as long as it takes. An error = it will never do.
    pub(crate) async fn settled(&self) -> Result<(), RedisError> {
        let (mut link, mut refusal) = (self.link(), self.shared.refusal.subscribe());
        let settled = |link: &Link| matches!(link, Link::Up { assurance, .. } if assurance.settled);
        tokio::select! {
            _ = link.wait_for(settled) => Ok(()),
            Ok(refused) = refusal.wait_for(|why| matches!(why, Some(RedisError::TooOld(_)))) => {
                Err(refused.clone().unwrap_or(RedisError::Down))
            }
        }
    }

    /// Why sends are refused at the moment, or Redis is not used at all.
    #[must_use]
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.shared.link.borrow() {
            Link::Up { assurance, .. } => assurance.short.clone(),
            Link::Down => self.shared.refusal.borrow().as_ref().map(ToString::to_string),
        }
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
        self.run_all(self.session(None)?, commands).await
    }

    /// The same, over the connection of this `generation` or not at all.
    pub(crate) async fn pipeline_on(
        &self,
        generation: u64,
        commands: Vec<redis::Cmd>,
    ) -> Result<Vec<RedisResult<Value>>, RedisError> {
        self.run_all(self.session(Some(generation))?, commands).await
    }

    /// Waits until what was answered over the connection of this `generation`
    /// is confirmed.
    pub(crate) async fn confirm(&self, generation: u64, wait: Wait) -> Result<(), RedisError> {
        if wait == Wait::Nothing {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let request = Request { wait, done };
        self.session(Some(generation))?.requests.send(request).await.map_err(|_| RedisError::Down)?;
        // A round that has not begun, and one.
        match timeout(CONFIRM_WITHIN * 3, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RedisError::Down),
            Err(_) => Err(RedisError::Timeout),
        }
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

    /// What waits for a round trip with others.
    pub(super) fn gather(&self) -> &Arc<Gather> {
        &self.shared.gather
    }

    fn session(&self, generation: Option<u64>) -> Result<Arc<Session>, RedisError> {
        let session = self.shared.session.borrow().clone();
        session
            .filter(|session| generation.is_none_or(|generation| session.generation == generation))
            .ok_or(RedisError::Down)
    }

    async fn run_all(
        &self,
        session: Arc<Session>,
        commands: Vec<redis::Cmd>,
    ) -> Result<Vec<RedisResult<Value>>, RedisError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = session.connection.clone();
        let mut pipe = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipe.add_command(command);
        }
        pipe.ignore_errors();
        let results = self.run(&mut connection, &pipe).await?;
        if results.iter().filter_map(code).any(ends_session) {
            self.shared.suspect.notify_one();
        }
        if !results.iter().filter_map(code).any(forgot_script) {
            return Ok(results);
        }
        let mut load = Pipeline::new();
        for script in script::all() {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        load.ignore_errors();
        self.run(&mut connection, &load).await?;
        self.run(&mut connection, &pipe).await
    }

    async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        pipe: &Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, RedisError> {
        metrics().redis_commands.increment(u64::try_from(pipe.len()).unwrap_or(u64::MAX));
        let answer = timeout(self.shared.timeout, pipe.query_async(connection)).await;
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
