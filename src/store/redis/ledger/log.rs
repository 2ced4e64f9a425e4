//! The log: one stream, with fields that anybody can read.
//!
//! An entry takes 60 to 120 bytes of Redis besides its properties; a
//! remembered id 56 to 64, for 7 to 14 days.

use std::collections::HashMap;

use redis::Value;

use super::{RedisLedger, parse, unavailable};
use crate::analytics::{Entry, InstallId, Place, Position};
use crate::redis::{Call, RECORD, SINK};
use crate::store::StoreError;
use crate::store::ledger::{Batch, Counted, LogPage, Recorded};
use crate::types::UserId;

/// An id is remembered for at least this long and at most twice as long.
const PERIOD_MS: i64 = crate::analytics::PAST_MS;
/// Entries per script call: a millisecond or two of one.
const CALL: usize = 100;
/// Bytes of the entries of one round trip, so that a slow line carries them
/// within its deadline.
const ROUND: usize = 1 << 20;
/// Bytes of an entry besides its properties, about.
const ENTRY: usize = 64;

/// Id and fields, as Redis answers them.
type Row = (String, HashMap<String, String>);

impl RedisLedger {
    pub(crate) async fn record(&self, batch: Batch<'_>) -> Result<Recorded, StoreError> {
        let (generation, assurance) = self.assured()?;
        let period = batch.now / PERIOD_MS;
        let ids = |period: i64| self.keys.census(&format!(".events:ids:{period}"));
        let keys = [
            self.keys.census(".events"),
            self.keys.census(".ledger"),
            ids(period),
            ids(period - 1),
            ids(period + 1),
        ];
        // Rounds of calls, each with its bytes.
        let mut rounds: Vec<(Vec<redis::Cmd>, usize)> = vec![Default::default()];
        for (part, items) in batch.items.chunks(CALL).enumerate() {
            // Each part is appended once for itself.
            let (writer, number) = batch.writer.unwrap_or(("", 0));
            let writer = if writer.is_empty() { String::new() } else { format!("batch:{writer}:{part}") };
            let call = Call::new(&RECORD, &keys).arg(2 * PERIOD_MS / 1000).arg(writer).arg(number);
            let call = items.iter().map(|item| &item.entry).fold(call, with_entry);
            let bytes = items.iter().map(|item| item.entry.properties.len() + ENTRY).sum::<usize>();
            match rounds.last_mut() {
                Some((calls, sum)) if calls.is_empty() || *sum + bytes <= ROUND => {
                    calls.push(call.into());
                    *sum += bytes;
                }
                _ => rounds.push((vec![call.into()], bytes)),
            }
        }
        let last = rounds.len().saturating_sub(1);
        let mut recorded = Recorded::default();
        for (round, (mut commands, _)) in rounds.into_iter().enumerate() {
            let calls = commands.len();
            if round == last {
                let counted = batch.items.iter().filter_map(|item| Counted::of(&item.entry, item.day));
                commands.extend(self.counting_commands(&counted.collect::<Vec<_>>(), None));
            }
            let replies = self.client.pipeline_on(generation, commands).await.map_err(unavailable)?;
            for (index, reply) in replies.into_iter().enumerate() {
                if index < calls {
                    let (accepted, duplicates) = parse::<(u64, u64)>(reply)?;
                    recorded.accepted += accepted;
                    recorded.duplicates += duplicates;
                } else {
                    parse::<Value>(reply)?;
                }
            }
        }
        self.confirm(generation, &assurance).await?;
        Ok(recorded)
    }

    pub(crate) async fn read_log(&self, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.keys.census(".events")).arg(format!("({after}")).arg("+");
        range.arg("COUNT").arg(limit.saturating_add(1));
        let mut rows: Vec<Row> = self.one(range).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let read = |(id, fields): Row| {
            let at = Position::parse(&id).ok_or_else(|| StoreError::Broken(format!("entry {id}")))?;
            Ok((at, entry(fields)))
        };
        Ok(LogPage { entries: rows.into_iter().map(read).collect::<Result<_, StoreError>>()?, has_more })
    }

    #[cfg(test)]
    pub(crate) async fn log_end(&self) -> Result<Position, StoreError> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(self.keys.census(".events")).arg("+").arg("-").arg("COUNT").arg(1);
        let rows: Vec<(String, Value)> = self.one(last).await?;
        Ok(rows.first().and_then(|(id, _)| Position::parse(id)).unwrap_or_default())
    }

    pub(crate) async fn log_trimmed(&self) -> Result<Position, StoreError> {
        self.position("trimmed").await
    }

    pub(crate) async fn trim_log(&self, before: i64, most: u64) -> Result<u64, StoreError> {
        let stream = self.keys.census(".events");
        let first = async || -> Result<Option<Position>, StoreError> {
            let mut first = redis::cmd("XRANGE");
            first.arg(&stream).arg("-").arg("+").arg("COUNT").arg(1);
            let rows: Vec<(String, Value)> = self.one(first).await?;
            Ok(rows.first().and_then(|(id, _)| Position::parse(id)))
        };
        let Some(oldest) = first().await? else { return Ok(0) };
        let before = Position::before(before);
        let mut removed = 0;
        if oldest <= before {
            // Said first: what may be gone is not taken for whole.
            let mut newest = redis::cmd("XREVRANGE");
            newest.arg(&stream).arg(before.ms).arg("-").arg("COUNT").arg(1);
            let rows: Vec<(String, Value)> = self.one(newest).await?;
            let gone = rows.first().and_then(|(id, _)| Position::parse(id)).unwrap_or(oldest);
            self.set_position("trimmed", gone).await?;
            let mut trim = redis::cmd("XTRIM");
            trim.arg(&stream).arg("MINID").arg(before.ms.saturating_add(1));
            removed += self.one::<u64>(trim).await?;
        }
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&stream).arg("MAXLEN").arg(most);
        let surplus = self.one::<u64>(trim).await?;
        if surplus > 0 {
            let left = first().await?.map(|first| Position::before(first.ms.try_into().unwrap_or(0)));
            if let Some(gone) = left {
                self.set_position("trimmed", gone).await?;
            }
        }
        Ok(removed + surplus)
    }

    pub(crate) async fn sunk(&self, sink: &str) -> Result<Position, StoreError> {
        self.position(&format!("sink:{sink}")).await
    }

    pub(crate) async fn set_sunk(&self, sink: &str, at: Position) -> Result<(), StoreError> {
        self.set_position(&format!("sink:{sink}"), at).await
    }

    async fn position(&self, field: &str) -> Result<Position, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.census(".ledger")).arg(field);
        let text: Option<String> = self.one(get).await?;
        Ok(text.and_then(|text| Position::parse(&text)).unwrap_or_default())
    }

    async fn set_position(&self, field: &str, at: Position) -> Result<(), StoreError> {
        // Of one width, so that they compare as texts.
        let ordered = format!("{:020}-{:020}", at.ms, at.n);
        let call = Call::new(&SINK, &[self.keys.census(".ledger")]).arg(field).arg(ordered);
        self.one::<Value>(call.into()).await.map(drop)
    }
}

fn with_entry(call: Call, entry: &Entry) -> Call {
    call.arg(entry.key().map_or_else(Vec::new, Vec::from))
        .arg(&entry.name)
        .arg(entry.install.as_ref().map_or("", InstallId::as_str))
        .arg(entry.user.map_or(0, UserId::get))
        .arg(entry.at)
        .arg(entry.received_at)
        .arg(&entry.id)
        .arg(&entry.place.province)
        .arg(&entry.place.city)
        .arg(&entry.properties)
}

fn entry(mut fields: HashMap<String, String>) -> Entry {
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let number = |text: String| text.parse().unwrap_or(0);
    Entry {
        name: take("name"),
        install: InstallId::new(&take("install")).ok(),
        user: UserId::new(number(take("user"))).ok(),
        at: number(take("at")),
        received_at: number(take("received")),
        id: take("id"),
        place: Place { province: take("province"), city: take("city") },
        properties: take("properties"),
    }
}
