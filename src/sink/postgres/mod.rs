//! PostgreSQL: three tables, filled by one gateway at a time.
//!
//! Where in the log it stands is kept in the database, and moves in the
//! transaction that copies: an entry is there once, whatever fails.

mod log;
mod migration;
mod numbers;
mod session;

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::numbers::Numbers;
use self::session::Session;
use crate::analytics::{Position, Zone};
use crate::config::PostgresConfig;
use crate::store::StoreError;
use crate::store::ledger::Ledger;
use crate::task::spawn_core;
use crate::telemetry::SinkMetrics;
use crate::types::unix_ms;

/// Pause after a page of the log that was the last one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Pause before it is looked again whether another gateway still copies.
const STAND_BY: Duration = Duration::from_secs(5);
/// How the ledger calls this sink.
const NAME: &str = "postgres";

/// Why nothing is copied at the moment; it is tried again.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    /// The URL cannot be read.
    #[error("{0}")]
    Database(#[from] Refusal),
    /// It did not answer in time.
    #[error("PostgreSQL did not answer within {} s", session::WITHIN.as_secs())]
    Timeout,
    /// The log or the numbers could not be read.
    #[error("the log cannot be read: {0}")]
    Store(#[from] StoreError),
    /// Its tables were made by a newer program.
    #[error("the tables are of version {0}, this program knows {1}")]
    Newer(i32, i32),
    /// Another gateway copies.
    #[error("another gateway copies")]
    StandBy,
}

/// What the database said, in its words.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.words())]
struct Refusal(#[from] tokio_postgres::Error);

impl Refusal {
    fn words(&self) -> String {
        match self.0.as_db_error() {
            Some(error) => format!("PostgreSQL: {} ({})", error.message(), error.code().code()),
            None => {
                let source = std::error::Error::source(&self.0).map(|source| format!(": {source}"));
                format!("PostgreSQL: {}{}", self.0, source.unwrap_or_default())
            }
        }
    }

    /// It does not like a value, and never will.
    fn is_data(&self) -> bool {
        self.0.code().is_some_and(|code| code.code().starts_with("22"))
    }
}

impl From<tokio_postgres::Error> for SinkError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(Refusal(error))
    }
}

/// The sink: what it copies, and where to.
#[derive(Debug)]
pub(crate) struct Postgres {
    config: PostgresConfig,
    ledger: Ledger,
    zone: Zone,
    metrics: SinkMetrics,
}

impl Postgres {
    /// Copies `ledger`, whose days are those of `zone`.
    #[must_use]
    pub(crate) fn new(config: PostgresConfig, ledger: Ledger, zone: Zone) -> Self {
        Self { config, ledger, zone, metrics: SinkMetrics::postgres() }
    }

    /// What its rows are marked with.
    fn source(&self) -> &str {
        &self.config.source
    }

    /// Copies until `stop`.
    pub(crate) fn start(self, stop: &CancellationToken) {
        spawn_core("postgres", stop, self.run());
    }

    async fn run(self) {
        let mut failures = 0_u32;
        loop {
            let mut progress = false;
            let Err(error) = self.copy(&mut progress).await;
            if progress {
                failures = 0;
            }
            let pause = match &error {
                SinkError::StandBy => STAND_BY,
                _ => {
                    self.metrics.errors.increment(1);
                    // Once at the start of an outage, then about every minute.
                    if failures.is_multiple_of(8) {
                        warn!(%error, "nothing is copied to PostgreSQL; trying again");
                    }
                    failures = failures.saturating_add(1);
                    Duration::from_millis(250).saturating_mul(1 << failures.min(6)).min(MAX_BACKOFF)
                }
            };
            self.tell_lag().await;
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Returns when it cannot go on; `progress` = it could begin.
    async fn copy(&self, progress: &mut bool) -> Result<std::convert::Infallible, SinkError> {
        let mut session = Session::open(&self.config.url).await?;
        session.migrate().await?;
        session.lock(self.source()).await?;
        info!("copying to PostgreSQL");
        *progress = true;
        let mut numbers = Numbers::default();
        // Nobody else moves it while the lock is held.
        let mut after = session.position(self.source()).await?;
        let mut told = Position::default();
        loop {
            let has_more = self.copy_page(&mut session, &mut after, &mut told).await?;
            numbers.copy(self, &mut session).await?;
            if has_more {
                self.tell_lag().await;
            } else {
                self.metrics.lag.set(0.0);
                sleep(PAUSE).await;
            }
        }
    }

    /// One page of the log behind `after`, which moves; whether there is more.
    /// `told` = the last gap.
    async fn copy_page(
        &self,
        session: &mut Session,
        after: &mut Position,
        told: &mut Position,
    ) -> Result<bool, SinkError> {
        let trimmed = self.ledger.trimmed().await?;
        if Position::default() < *after && *after < trimmed && std::mem::replace(told, trimmed) != trimmed {
            self.metrics.gaps.increment(1);
            error!(from = %after, to = %trimmed, "entries left the log before they were copied to PostgreSQL");
        }
        let page = self.ledger.read(*after, log::PAGE).await?;
        let Some((last, _)) = page.entries.last() else { return Ok(false) };
        let last = *last;
        let apart = session.append(self.source(), &page.entries, last).await?;
        self.metrics.set_apart.increment(apart);
        self.metrics.copied.increment(u64::try_from(page.entries.len()).unwrap_or(u64::MAX));
        *after = last;
        self.ledger.set_sunk(NAME, last).await?;
        Ok(page.has_more)
    }

    /// How old the oldest entry is that was not copied.
    async fn tell_lag(&self) {
        let Ok(sunk) = self.ledger.sunk(NAME).await else { return };
        let Ok(page) = self.ledger.read(sunk, 1).await else { return };
        let oldest = page.entries.first().map(|(Position { ms, .. }, _)| *ms);
        let now = u64::try_from(unix_ms()).unwrap_or(0);
        self.metrics.lag.set(oldest.map_or(0.0, |ms| seconds(now.saturating_sub(ms))));
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
