//! The log in Redis: a stream per conversation with ids `<seq>-0`, everything
//! of one call in one round trip.

mod append;
mod creation;
mod ledger;
mod members;
mod read;
#[cfg(test)]
mod tests;
mod trim;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::watch;

pub(crate) use self::ledger::{Counting, RedisLedger};
use super::{Audience, Cursor, Progress, StoreError};
use crate::redis::{Call, Client, Keys, Link, POSITION, RedisError, is_permanent};
use crate::types::{ConversationId, Epoch, GatewayId, GatewayRef};

/// One gateway's store in Redis.
#[derive(Debug)]
pub(crate) struct RedisStore {
    client: Client,
    keys: Keys,
    link: watch::Receiver<Link>,
    /// When the members' indexes were last written, per conversation.
    touched: Mutex<HashMap<ConversationId, Instant>>,
    /// Names this store among those that remove old messages.
    name: String,
}

impl RedisStore {
    /// Over `client`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys) -> Self {
        let link = client.link();
        let name = format!("{:016x}", fastrand::u64(..));
        Self { client, keys, link, touched: Mutex::default(), name }
    }

    pub(super) fn level(&self) -> u32 {
        match &*self.link.borrow() {
            Link::Up { assurance, .. } => assurance.level,
            Link::Down => 1,
        }
    }

    pub(super) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Option<Cursor>>, StoreError> {
        let call = |progress: &Progress| {
            let key = |part: &str| self.keys.conversation(&progress.conversation, part);
            let mut keys = vec![key("meta"), key("cursors")];
            if matches!(progress.conversation, ConversationId::Group(_)) {
                keys.extend([key("members"), key("gateways")]);
            }
            Call::new(&POSITION, &keys)
                .arg(progress.user.get())
                .arg(progress.delivered)
                .arg(progress.read)
                .into()
        };
        let replies = self.ask(batch.iter().map(call).collect()).await?;
        batch.iter().zip(replies).map(|(progress, reply)| cursor(progress, reply)).collect()
    }

    /// One round trip of one command.
    async fn one<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, StoreError> {
        parse(self.reply(command).await?)
    }

    async fn reply(&self, command: redis::Cmd) -> Result<RedisResult<Value>, StoreError> {
        let [reply] = self.some([command]).await?;
        Ok(reply)
    }

    /// One round trip of some commands.
    async fn some<const N: usize>(
        &self,
        commands: [redis::Cmd; N],
    ) -> Result<[RedisResult<Value>; N], StoreError> {
        self.ask(commands.into()).await?.try_into().map_err(|_| StoreError::Unavailable)
    }

    async fn ask(&self, commands: Vec<redis::Cmd>) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.client.pipeline(commands).await.map_err(unavailable)
    }

    /// In a round trip with others.
    async fn ask_with_others(&self, command: redis::Cmd) -> Result<RedisResult<Value>, StoreError> {
        self.client.gathered(command).await.map_err(unavailable)
    }
}

fn unavailable(error: RedisError) -> StoreError {
    tracing::debug!(%error, "store");
    StoreError::Unavailable
}

/// mver, members, and the gateways with their epochs.
type Told = (u64, u64, HashMap<String, u64>);

/// What a script told, by gateway id.
fn audience((mver, members, gateways): Told) -> Audience {
    let gateway =
        |(id, epoch): (String, u64)| Some(GatewayRef { id: GatewayId::new(&id).ok()?, epoch: Epoch(epoch) });
    let mut gateways: Vec<GatewayRef> = gateways.into_iter().filter_map(gateway).collect();
    gateways.sort_by(|a, b| a.id.cmp(&b.id));
    Audience { mver, members, gateways }
}

/// One conversation that cannot be used is passed over, not tried for ever.
fn cursor(progress: &Progress, reply: RedisResult<Value>) -> Result<Option<Cursor>, StoreError> {
    type Reply = (u64, i64, i64, i64, i64, Value);
    match parse::<Option<Reply>>(reply) {
        Ok(None) => Ok(None),
        Ok(Some((epoch, delivered, read, delivered_before, read_before, told))) => {
            let audience = match told {
                Value::Int(_) => None,
                told => Some(Arc::new(audience(parse(Ok(told))?))),
            };
            Ok(Some(Cursor {
                epoch,
                delivered,
                read,
                delivered_grew: delivered > delivered_before,
                read_grew: read > read_before,
                audience,
            }))
        }
        Err(StoreError::Broken(why)) => {
            tracing::error!(conversation = %progress.conversation, why, "position not written");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse<T: FromRedisValue>(reply: RedisResult<Value>) -> Result<T, StoreError> {
    let value = reply.and_then(Value::extract_error).map_err(|error| refused(&error))?;
    T::from_redis_value(value).map_err(|error| StoreError::Broken(error.to_string()))
}

fn refused(error: &redis::RedisError) -> StoreError {
    if is_permanent(error) { StoreError::Broken(error.to_string()) } else { StoreError::Unavailable }
}
