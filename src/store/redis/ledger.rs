//! The ledger in Redis: a stream of entries, estimates or sets of each day's
//! people, a stream of samples whose ids are their instants.

mod daily;
mod log;

use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::watch;

use super::{parse, refused, unavailable};
use crate::analytics::{Position, Sample};
use crate::redis::{Assurance, Client, Keys, Link, Wait};
use crate::store::StoreError;
use crate::telemetry::metrics;

/// Samples read per round trip.
const SAMPLES: usize = 10_000;

/// How people are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// By HyperLogLog: 12 KiB for any number.
    Estimated,
    /// By sets: some 60 bytes for each person and place.
    Exact,
}

/// The ledger of all gateways.
#[derive(Debug, Clone)]
pub(crate) struct RedisLedger {
    client: Client,
    keys: Keys,
    link: watch::Receiver<Link>,
    counting: Counting,
    /// For how long the numbers of a closed day are kept, s.
    keep_s: i64,
    /// Names it among those that take turns.
    name: String,
}

impl RedisLedger {
    /// Over `client`; numbers are kept for `keep_s` seconds.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys, counting: Counting, keep_s: i64) -> Self {
        let link = client.link();
        let name = format!("{:016x}", fastrand::u64(..));
        Self { client, keys, link, counting, keep_s, name }
    }

    /// In a Redis of the test's own, which ends with the second value.
    #[cfg(test)]
    pub(crate) async fn of_its_own(counting: Counting) -> (Self, crate::redis::testing::TestRedis) {
        let redis = crate::redis::testing::TestRedis::start();
        let ledger = Self::new(redis.client().await, Keys::default(), counting, 86_400);
        (ledger, redis)
    }

    /// The same of another gateway.
    #[cfg(test)]
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// The same of a gateway that counts in this way.
    #[cfg(test)]
    pub(crate) fn recounted(&self, counting: Counting) -> Self {
        Self { counting, ..self.clone() }
    }

    pub(crate) async fn takes_turn(&self, ms: u64) -> Result<bool, StoreError> {
        let key = self.keys.census(".turn");
        let mut take = redis::cmd("SET");
        take.arg(&key).arg(&self.name).arg("NX").arg("PX").arg(ms);
        let mut holder = redis::cmd("GET");
        holder.arg(&key);
        let mut replies = self.ask(vec![take, holder]).await?;
        let holder: Option<String> = parse(replies.pop().ok_or(StoreError::Unavailable)?)?;
        if holder.as_ref() != Some(&self.name) {
            return Ok(false);
        }
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(&key).arg(ms);
        self.one(keep).await
    }

    pub(crate) async fn sample(&self, sample: Sample) -> Result<bool, StoreError> {
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.census(".online")).arg(format!("{}-0", sample.at)).arg("n").arg(sample.online);
        let reply = self.ask(vec![add]).await?.pop().ok_or(StoreError::Unavailable)?;
        match reply.and_then(Value::extract_error) {
            Ok(_) => Ok(true),
            // An instant that is there already, or older than the last.
            Err(error) if error.to_string().contains("equal or smaller") => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    pub(crate) async fn samples(&self, from: i64, to: i64) -> Result<Vec<Sample>, StoreError> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut from = from.max(0).to_string();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(self.keys.census(".online")).arg(&from).arg(format!("({}-0", to.max(0)));
            range.arg("COUNT").arg(SAMPLES);
            let rows: Vec<(String, (String, u64))> = self.one(range).await?;
            let read = rows.len();
            if let Some((last, _)) = rows.last() {
                from = format!("({last}");
            }
            let sample = |(id, (_, online)): (String, (String, u64))| {
                let at = Position::parse(&id).and_then(|id| i64::try_from(id.ms).ok())?;
                Some(Sample { at, online })
            };
            samples.extend(rows.into_iter().filter_map(sample));
            if read < SAMPLES {
                return Ok(samples);
            }
        }
    }

    /// The numbers of days run out by themselves.
    pub(crate) async fn forget(&self, before: i64, _: crate::analytics::Day) -> Result<u64, StoreError> {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(self.keys.census(".online")).arg("MINID").arg(before.max(0));
        self.one(trim).await
    }

    /// One round trip of one command.
    async fn one<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, StoreError> {
        parse(self.ask(vec![command]).await?.pop().ok_or(StoreError::Unavailable)?)
    }

    async fn ask(&self, commands: Vec<redis::Cmd>) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.client.pipeline(commands).await.map_err(unavailable)
    }

    /// The connection, and what stands behind an answer over it.
    fn assured(&self) -> Result<(u64, Assurance), StoreError> {
        match &*self.link.borrow() {
            Link::Up { generation, assurance, .. } if assurance.short.is_none() => {
                Ok((*generation, assurance.clone()))
            }
            _ => {
                metrics().unconfirmed.increment(1);
                Err(StoreError::Unavailable)
            }
        }
    }

    /// Waits until what was answered is as durable as it was to be.
    async fn confirm(&self, generation: u64, wanted: &Assurance) -> Result<(), StoreError> {
        let confirmed = self.client.confirm(generation, wanted.wait).await;
        let holds = matches!(&*self.link.borrow(), Link::Up { generation: now, assurance, .. }
            if *now == generation && assurance.level >= wanted.level);
        if confirmed.is_ok() && (holds || wanted.wait != Wait::Nothing) {
            return Ok(());
        }
        metrics().unconfirmed.increment(1);
        Err(StoreError::Unavailable)
    }
}
