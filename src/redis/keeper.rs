//! Keeps the level known, and writes confirmed at it.
//!
//! A wait blocks its connection, so it has some of its own, opened when they
//! are needed. It waits for every write before it, whoever made it: appends go
//! over the shared connection, and one wait confirms all that were answered
//! before it began, duplicates with their originals. One write and one wait
//! per round, none per message.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::RedisError;
use super::client::Shared;
use super::durability::{self, Disk, Known, Seen, Wait};
use super::error::is_demoted;
use super::server;
use super::supervisor::{self, Session};

/// How often the settings are read again.
const SETTINGS_EVERY: Duration = Duration::from_secs(10);
/// The same while sends are refused for them.
const SHORT_EVERY: Duration = Duration::from_secs(1);
/// Waits under way at a time, each on its own connection.
const ROUNDS: usize = 6;
/// Another wait begins beside those under way after this: where an fsync
/// comes once a second, a write need not wait for two.
const STAGGER: Duration = Duration::from_millis(200);

/// Whoever waits for a confirmation.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) wait: Wait,
    pub(super) done: oneshot::Sender<Result<(), RedisError>>,
}

/// One wait, and the connection back if it is still good.
type Round = (MultiplexedConnection, Result<(bool, String), RedisError>, Vec<Request>, Wait);

/// The keeper of one session.
pub(super) struct Keeper<'a> {
    pub(super) shared: &'a Shared,
    pub(super) session: &'a Session,
    pub(super) known: Known,
    /// Whether all was tried once.
    pub(super) settled: bool,
    /// The process that was seen to wait; it outlives the session.
    pub(super) honest: &'a mut Option<String>,
}

impl Keeper<'_> {
    /// Returns when the connection no longer answers, saying why.
    pub(super) async fn keep(mut self, mut requests: mpsc::Receiver<Request>) -> RedisError {
        let mut idle: Vec<MultiplexedConnection> = Vec::new();
        let mut rounds: JoinSet<Round> = JoinSet::new();
        let mut waiting: Vec<Request> = Vec::new();
        let mut begun = Instant::now();
        let mut assess_at = Instant::now();
        loop {
            let may_begin = !waiting.is_empty() && rounds.len() < ROUNDS;
            let begin_at = if rounds.is_empty() { begun } else { begun + STAGGER };
            tokio::select! {
                Some(request) = requests.recv() => waiting.push(request),
                () = sleep_until(begin_at), if may_begin => {
                    begun = Instant::now();
                    if let Err(error) = self.begin(&mut rounds, &mut idle, &mut waiting).await {
                        return error;
                    }
                }
                Some(round) = rounds.join_next() => {
                    let Ok((connection, answer, asked, wait)) = round else { return RedisError::Down };
                    match self.conclude(answer, asked, wait) {
                        Ok(true) => idle.push(connection),
                        // Perhaps there is too little now for what was
                        // promised: found out before more is appended.
                        Ok(false) => {
                            idle.push(connection);
                            self.known.replicas = None;
                            assess_at = Instant::now();
                        }
                        Err(error) => return error,
                    }
                }
                () = sleep_until(assess_at) => {
                    match self.assess(&mut idle).await {
                        Err(error) => return error,
                        Ok(short) => {
                            assess_at = Instant::now() + if short { SHORT_EVERY } else { SETTINGS_EVERY };
                        }
                    }
                }
            }
        }
    }

    async fn begin(
        &self,
        rounds: &mut JoinSet<Round>,
        idle: &mut Vec<MultiplexedConnection>,
        waiting: &mut Vec<Request>,
    ) -> Result<(), RedisError> {
        let Some(wait) = waiting.first().map(|request| request.wait) else { return Ok(()) };
        let asked = std::mem::take(waiting);
        // Not the same as when they were appended: another one asks again.
        let (asked, other): (Vec<_>, Vec<_>) = asked.into_iter().partition(|request| request.wait == wait);
        *waiting = other;
        let mut connection = self.connection(idle).await?;
        let key = self.shared.keys.confirm();
        rounds.spawn(async move {
            let answer = durability::confirmed(&mut connection, &key, wait).await;
            (connection, answer, asked, wait)
        });
        Ok(())
    }

    /// `Ok(false)` = not confirmed; an error = the session is over.
    fn conclude(
        &self,
        answer: Result<(bool, String), RedisError>,
        asked: Vec<Request>,
        wait: Wait,
    ) -> Result<bool, RedisError> {
        let level = if matches!(wait, Wait::Aof(0)) { 2 } else { 3 };
        let answer = match answer {
            // The same history before and after: what was appended in between
            // is in it.
            Ok((reached, info)) => match server::primary(&info) {
                Ok(replid) if replid == self.session.server.replid => Ok(reached),
                Ok(_) => Err(RedisError::OtherHistory),
                Err(error) => Err(error),
            },
            // It is full, say: nothing is known of the write, but it serves.
            Err(RedisError::Server(refused)) if !refused.is_io_error() && !is_demoted(&refused) => Ok(false),
            Err(error) => Err(error),
        };
        let confirmed = matches!(answer, Ok(true));
        for request in asked {
            let _ = request.done.send(if confirmed { Ok(()) } else { Err(RedisError::Unconfirmed(level)) });
        }
        answer
    }

    async fn connection(
        &self,
        idle: &mut Vec<MultiplexedConnection>,
    ) -> Result<MultiplexedConnection, RedisError> {
        match idle.pop() {
            Some(connection) => Ok(connection),
            None => {
                let (connection, server) =
                    supervisor::open(self.shared, durability::CONFIRM_WITHIN * 2).await?;
                // Behind one address there may be several servers.
                if server == self.session.server { Ok(connection) } else { Err(RedisError::OtherHistory) }
            }
        }
    }

    /// Reads the settings, tries what they leave open, tells what stands
    /// behind an ack; returns whether that is too little.
    async fn assess(&mut self, idle: &mut Vec<MultiplexedConnection>) -> Result<bool, RedisError> {
        let wanted = self.shared.durability;
        let disk = read_disk(self.shared, &mut self.session.connection.clone()).await?;
        if disk != self.known.disk {
            self.known = Known { disk, waitaof: self.known.waitaof, replicas: None };
        }
        // What is less than before is so from now on, not after the trials.
        self.shared.assure(&self.known.assurance(wanted, self.settled));
        let key = self.shared.keys.confirm();
        if self.known.lacks_probe(wanted) {
            let mut connection = self.connection(idle).await?;
            self.known.waitaof = durability::probe(&mut connection, &key).await?;
            idle.push(connection);
            match self.known.waitaof {
                Seen::Yes => *self.honest = Some(self.session.server.run_id.clone()),
                Seen::No => {
                    info!("WAITAOF of this redis does not wait for the disk, or is not there: not used")
                }
                Seen::Unknown => {}
            }
        }
        if wanted.level == Some(3) && self.known.assurance(wanted, true).level == 2 {
            let mut connection = self.connection(idle).await?;
            self.known.replicas =
                durability::replicas(&mut connection, &key, self.known.disk, wanted.replicas).await?;
            idle.push(connection);
        }
        self.settled = true;
        let now = self.known.assurance(wanted, true);
        self.shared.assure(&now);
        Ok(now.short.is_some())
    }
}

/// What the settings say; what cannot be read is not confirmed.
pub(super) async fn read_disk(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
) -> Result<Disk, RedisError> {
    match supervisor::ask(shared, connection, &durability::settings()).await {
        Ok(settings) => Ok(Disk::of(&settings)),
        Err(RedisError::Server(error)) if !error.is_io_error() => Ok(Disk::Never),
        Err(error) => Err(error),
    }
}
