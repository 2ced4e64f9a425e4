//! The log of events: a page at a time.

use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::SinkError;
use super::session::{Session, timely};
use crate::analytics::{Entry, InstallId, Position};

/// Entries of one transaction.
pub(super) const PAGE: usize = 1_000;

const APPEND: &str = "
    INSERT INTO analytics_event_log
    SELECT $1, ms, n, name, person, install, to_timestamp(at / 1000.0), to_timestamp(received / 1000.0),
           nullif(id, ''), nullif(province, ''), nullif(city, ''), properties::jsonb, raw
    FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
                $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
      AS entry (ms, n, name, person, install, at, received, id, province, city, properties, raw)
    ON CONFLICT DO NOTHING";
const MOVE: &str = "
    INSERT INTO analytics_sink_cursors VALUES ($1, $2, $3)
    ON CONFLICT (source) DO UPDATE SET position_ms = $2, position_n = $3";

impl Session {
    /// How far the log was copied.
    pub(super) async fn position(&self, source: &str) -> Result<Position, SinkError> {
        let read = "SELECT position_ms, position_n FROM analytics_sink_cursors WHERE source = $1";
        let Some(row) = timely(self.client.query_opt(read, &[&source])).await? else {
            return Ok(Position::default());
        };
        let number = |place| Ok::<_, SinkError>(row.try_get::<_, i64>(place)?.cast_unsigned());
        Ok(Position { ms: number(0)?, n: number(1)? })
    }

    /// Entries, and that the log was copied up to `last`, or nothing; of how
    /// many the properties were set apart.
    pub(super) async fn append(
        &mut self,
        source: &str,
        entries: &[(Position, Entry)],
        last: Position,
    ) -> Result<u64, SinkError> {
        let done = self.try_append(source, Rows::of(entries), last).await;
        match done {
            Err(SinkError::Database(error)) if error.is_data() => {
                let mut rows = Rows::of(entries);
                let apart = self.set_apart(&mut rows).await?;
                self.try_append(source, rows, last).await.map(|()| apart)
            }
            done => done.map(|()| 0),
        }
    }

    async fn try_append(&mut self, source: &str, rows: Rows<'_>, last: Position) -> Result<(), SinkError> {
        let work = timely(self.client.transaction()).await?;
        rows.insert(&work, source).await?;
        let (ms, n) = (last.ms.cast_signed(), last.n.cast_signed());
        timely(work.execute(MOVE, &[&source, &ms, &n])).await?;
        timely(work.commit()).await
    }

    /// What JSON allows and `jsonb` does not (`\u0000`, a number beyond all
    /// bounds) is kept as text.
    async fn set_apart(&self, rows: &mut Rows<'_>) -> Result<u64, SinkError> {
        let mut apart = 0;
        for (properties, raw) in rows.properties.iter_mut().zip(&mut rows.raw) {
            let Some(text) = *properties else { continue };
            match timely(self.client.query_one("SELECT $1::text::jsonb IS NULL", &[&text])).await {
                Ok(_) => {}
                Err(SinkError::Database(error)) if error.is_data() => {
                    apart += 1;
                    *raw = properties.take();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(apart)
    }
}

/// Entries as columns.
#[derive(Default)]
struct Rows<'a> {
    ms: Vec<i64>,
    n: Vec<i64>,
    name: Vec<&'a str>,
    person: Vec<Option<i64>>,
    install: Vec<Option<&'a str>>,
    at: Vec<i64>,
    received: Vec<i64>,
    id: Vec<String>,
    province: Vec<&'a str>,
    city: Vec<&'a str>,
    properties: Vec<Option<&'a str>>,
    raw: Vec<Option<&'a str>>,
}

impl<'a> Rows<'a> {
    fn of(entries: &'a [(Position, Entry)]) -> Self {
        let mut rows = Self::default();
        for (position, entry) in entries {
            rows.ms.push(position.ms.cast_signed());
            rows.n.push(position.n.cast_signed());
            rows.name.push(&entry.name);
            rows.person.push(entry.user.map(crate::types::UserId::get));
            rows.install.push(entry.install.as_ref().map(InstallId::as_str));
            rows.at.push(entry.at);
            rows.received.push(entry.received_at);
            // A text of PostgreSQL holds any character but this.
            rows.id.push(entry.id.replace('\0', "\u{fffd}"));
            rows.province.push(&entry.place.province);
            rows.city.push(&entry.place.city);
            rows.properties.push(Some(&*entry.properties).filter(|properties| !properties.is_empty()));
            rows.raw.push(None);
        }
        rows
    }

    async fn insert(&self, work: &Transaction<'_>, source: &str) -> Result<(), SinkError> {
        let columns: [&(dyn ToSql + Sync); 13] = [
            &source,
            &self.ms,
            &self.n,
            &self.name,
            &self.person,
            &self.install,
            &self.at,
            &self.received,
            &self.id,
            &self.province,
            &self.city,
            &self.properties,
            &self.raw,
        ];
        timely(work.execute(APPEND, &columns)).await.map(drop)
    }
}
