//! The node number in message ids, leased so that no two gateways have one.

use redis::FromRedisValue;

use super::keys::Keys;
use super::lease::LEASE_TTL;
use super::script::Call;
use super::script::LEASE;
use super::{Client, RedisError};
use crate::types::{Epoch, GatewayId, fnv1a64};

/// Leases node numbers for one gateway epoch.
#[derive(Debug)]
pub(crate) struct NodeLease {
    client: Client,
    keys: Keys,
    /// Names the holder in 53 bits, what a script's number holds.
    holder: u64,
}

impl NodeLease {
    /// For `gateway` in `epoch`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys, gateway: &GatewayId, epoch: Epoch) -> Self {
        let holder = fnv1a64(format!("{gateway}|{epoch}").as_bytes()) >> 11;
        Self { client, keys, holder }
    }

    /// Takes a free number of 0..=`max`, starting anywhere; `None` = all are
    /// taken.
    pub(crate) async fn acquire(&self, max: u16) -> Result<Option<u16>, RedisError> {
        let start = fastrand::u16(0..=max);
        for node in (start..=max).chain(0..start) {
            if self.renew(node).await? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// Renews, or takes what is free; `false` = another holds it.
    pub(crate) async fn renew(&self, node: u16) -> Result<bool, RedisError> {
        let record = format!("{{\"epoch\":{}}}", self.holder);
        let ttl_ms = u64::try_from(LEASE_TTL.as_millis()).unwrap_or(u64::MAX);
        let call = Call::new(&LEASE, &[self.keys.node(node)]).arg(self.holder).arg(record).arg(ttl_ms);
        let value: redis::Value = self.client.command(call).await?;
        let (outcome, _, _) =
            <(i64, String, i64)>::from_redis_value(value).map_err(redis::RedisError::from)?;
        Ok(outcome != 0)
    }
}
