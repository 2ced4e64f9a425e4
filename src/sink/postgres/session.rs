//! One connection to PostgreSQL, with a deadline on every step.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::SinkError;
use crate::config::Secret;

/// Longest time a statement may take.
pub(super) const WITHIN: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);

/// Ends with its value.
pub(super) struct Session {
    pub(super) client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    pub(super) async fn open(url: &Secret) -> Result<Self, SinkError> {
        let mut config: Config = url.expose().parse()?;
        config.connect_timeout(CONNECT).keepalives_idle(WITHIN).application_name("tidegate");
        let (client, connection) = timely(config.connect(NoTls)).await?;
        // Its error is the next statement's.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client, driver })
    }

    /// Until the connection ends nobody else copies from this source.
    pub(super) async fn lock(&self, source: &str) -> Result<(), SinkError> {
        let lock = "SELECT pg_try_advisory_lock(hashtext('tidegate'), hashtext($1))";
        let row = timely(self.client.query_one(lock, &[&source])).await?;
        if row.try_get(0)? { Ok(()) } else { Err(SinkError::StandBy) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A step within its deadline.
pub(super) async fn timely<T>(
    step: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SinkError> {
    Ok(timeout(WITHIN, step).await.map_err(|_| SinkError::Timeout)??)
}
