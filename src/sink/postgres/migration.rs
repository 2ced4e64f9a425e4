//! The tables, made and changed by the program itself.

use super::SinkError;
use super::session::{Session, timely};

/// What makes each version out of the one before.
const STEPS: &[&str] = &[include_str!("schema.sql")];

impl Session {
    /// Brings the tables to this program's version, in one transaction; of
    /// several gateways at a time one does it.
    pub(super) async fn migrate(&mut self) -> Result<(), SinkError> {
        let work = timely(self.client.transaction()).await?;
        timely(work.batch_execute(
            "SELECT pg_advisory_xact_lock(hashtext('tidegate'), 0);
             CREATE TABLE IF NOT EXISTS analytics_schema (version integer NOT NULL)",
        ))
        .await?;
        let row = timely(work.query_opt("SELECT max(version) FROM analytics_schema", &[])).await?;
        let version: i32 = row.map(|row| row.try_get(0)).transpose()?.flatten().unwrap_or(0);
        let known = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
        if version > known {
            return Err(SinkError::Newer(version, known));
        }
        let done = usize::try_from(version).unwrap_or(0);
        for (number, step) in (1_i32..).zip(STEPS).skip(done) {
            timely(work.batch_execute(step)).await?;
            timely(work.execute("INSERT INTO analytics_schema VALUES ($1)", &[&number])).await?;
        }
        timely(work.commit()).await
    }
}
