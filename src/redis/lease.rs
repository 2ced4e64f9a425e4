//! The gateway's lease: proof that one process, and one only, is the gateway
//! of this id.

use std::time::Duration;

use redis::FromRedisValue;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::keys::Keys;
use super::script::Call;
use super::script::LEASE;
use super::{Client, RedisError};
use crate::types::{Epoch, GatewayId, unix_ms};

/// Life of a lease that is not renewed.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(15);
/// How long a start waits for a held lease to run out.
const START_WAIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(500);

/// What a lease says of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The holder's epoch.
    pub epoch: u64,
    /// Its WebSocket address.
    pub listen: String,
    /// Its admin address.
    pub admin: String,
    /// Its process id.
    pub pid: u32,
    /// Connections when it was last renewed.
    pub connections: u64,
}

/// Why the lease could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A live gateway holds it.
    #[error("gateway id {gateway} is held by a live gateway (listen {}, pid {}, epoch {})", .holder.listen, .holder.pid, .holder.epoch)]
    Held {
        /// The id both want.
        gateway: GatewayId,
        /// Who has it.
        holder: Box<LeaseRecord>,
    },
    /// Redis gave no answer.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// What a renewal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Still ours.
    Renewed,
    /// It was gone, and is ours again: others may have thought us dead.
    Retaken,
    /// Another epoch holds it: this process is superseded.
    Lost(Box<LeaseRecord>),
}

/// The lease of one gateway epoch.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    client: Client,
    keys: Keys,
    gateway: GatewayId,
    epoch: Epoch,
}

impl Lease {
    /// Of `gateway`, for `epoch`; nothing is taken yet.
    #[must_use]
    pub(crate) const fn new(client: Client, keys: Keys, gateway: GatewayId, epoch: Epoch) -> Self {
        Self { client, keys, gateway, epoch }
    }

    /// Takes the lease. One that is held is waited for, up to 20 s: if its
    /// holder renews it, he lives, and this start is refused. While Redis is
    /// down it keeps trying.
    pub(crate) async fn acquire(&self, record: &LeaseRecord) -> Result<(), LeaseError> {
        let started = Instant::now();
        let mut seen: Option<(LeaseRecord, i64)> = None;
        loop {
            match self.attempt(record).await {
                Ok(Attempt::Held(holder, ttl_ms)) => {
                    // A remaining life that grew was renewed in between.
                    let renewed = seen
                        .as_ref()
                        .is_some_and(|(before, left)| before.epoch != holder.epoch || ttl_ms > *left);
                    if renewed || started.elapsed() > START_WAIT {
                        return Err(LeaseError::Held {
                            gateway: self.gateway.clone(),
                            holder: Box::new(holder),
                        });
                    }
                    if seen.is_none() {
                        tracing::info!(holder = ?holder, ttl_ms, "lease is held; waiting for it to run out");
                    }
                    seen = Some((holder, ttl_ms));
                }
                Ok(Attempt::Mine { .. }) => return Ok(()),
                Err(error) => tracing::debug!(%error, "lease not taken yet"),
            }
            sleep(START_POLL).await;
        }
    }

    /// Renews the lease, or takes it back when it is gone.
    pub(crate) async fn renew(&self, record: &LeaseRecord) -> Result<Renewal, RedisError> {
        Ok(match self.attempt(record).await? {
            Attempt::Mine { fresh: false } => Renewal::Renewed,
            Attempt::Mine { fresh: true } => Renewal::Retaken,
            Attempt::Held(holder, _) => Renewal::Lost(Box::new(holder)),
        })
    }

    /// Gives the lease back, if it is still ours.
    pub(crate) async fn release(&self) -> Result<(), RedisError> {
        // Renewing for one millisecond is compare-and-delete with the script
        // at hand.
        let record = LeaseRecord {
            epoch: self.epoch.0,
            listen: String::new(),
            admin: String::new(),
            pid: 0,
            connections: 0,
        };
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.keys.gateways()).arg(self.gateway.as_str());
        let mine = self.call(&record, Duration::from_millis(1));
        self.client.pipeline(vec![mine, remove]).await.map(drop)
    }

    /// The leases of these gateways, `None` where there is none.
    pub(crate) async fn read(&self, gateways: &[GatewayId]) -> Result<Vec<Option<LeaseRecord>>, RedisError> {
        if gateways.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("MGET");
        for gateway in gateways {
            get.arg(self.keys.lease(gateway));
        }
        let values: Vec<Option<String>> = self.client.command(get).await?;
        Ok(values.into_iter().map(|value| serde_json::from_str(&value?).ok()).collect())
    }

    /// Every gateway that holds a lease.
    pub(crate) async fn live(&self) -> Result<Vec<(GatewayId, LeaseRecord)>, RedisError> {
        // The list is an index only, kept by many clocks: the leases decide.
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.keys.gateways()).arg(0).arg(-1);
        let ids: Vec<String> = self.client.command(range).await?;
        let ids: Vec<GatewayId> = ids.iter().filter_map(|id| GatewayId::new(id).ok()).collect();
        let records = self.read(&ids).await?;
        Ok(ids.into_iter().zip(records).filter_map(|(id, record)| Some((id, record?))).collect())
    }

    async fn attempt(&self, record: &LeaseRecord) -> Result<Attempt, RedisError> {
        let expiry = unix_ms() + i64::try_from(LEASE_TTL.as_millis()).unwrap_or(i64::MAX);
        let mut list = redis::cmd("ZADD");
        list.arg(self.keys.gateways()).arg(expiry).arg(self.gateway.as_str());
        let mut forget = redis::cmd("ZREMRANGEBYSCORE");
        // A minute's grace: clocks differ, and the list is only an index.
        forget.arg(self.keys.gateways()).arg("-inf").arg(unix_ms() - 60_000);
        let mut results = self.client.pipeline(vec![self.call(record, LEASE_TTL)]).await?;
        let value = results.pop().ok_or(RedisError::Down)??;
        let (outcome, held, ttl_ms) =
            <(i64, String, i64)>::from_redis_value(value).map_err(redis::RedisError::from)?;
        if outcome != 0 {
            // The index may lag behind, as on a full server.
            let _ = self.client.pipeline(vec![list, forget]).await;
            return Ok(Attempt::Mine { fresh: outcome == 2 });
        }
        let unknown =
            || LeaseRecord { epoch: 0, listen: held.clone(), admin: String::new(), pid: 0, connections: 0 };
        Ok(Attempt::Held(serde_json::from_str(&held).unwrap_or_else(|_| unknown()), ttl_ms))
    }

    fn call(&self, record: &LeaseRecord, ttl: Duration) -> redis::Cmd {
        let json = serde_json::to_string(record).unwrap_or_default();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Call::new(&LEASE, &[self.keys.lease(&self.gateway)]).arg(self.epoch.0).arg(json).arg(ttl_ms).into()
    }
}

enum Attempt {
    Mine { fresh: bool },
    Held(LeaseRecord, i64),
}
