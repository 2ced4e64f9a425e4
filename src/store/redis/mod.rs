//! The log in Redis: a stream per conversation with ids `<seq>-0`, everything
//! of one call in one round trip.

mod append;
mod groups;
mod read;

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::watch;

use super::{Cursor, Progress, StoreError};
use crate::redis::{Call, Client, Keys, Link, POSITION, RedisError, is_permanent};
use crate::types::ConversationId;

/// One gateway's store in Redis.
#[derive(Debug)]
pub(crate) struct RedisStore {
    client: Client,
    keys: Keys,
    link: watch::Receiver<Link>,
    /// When the members' indexes were last written, per conversation.
    touched: Mutex<HashMap<ConversationId, Instant>>,
}

impl RedisStore {
    /// Over `client`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys) -> Self {
        let link = client.link();
        Self { client, keys, link, touched: Mutex::default() }
    }

    pub(super) fn level(&self) -> u32 {
        match *self.link.borrow() {
            Link::Up { level, .. } => level,
            Link::Down => 1,
        }
    }

    pub(super) async fn advance(&self, batch: &[Progress]) -> Result<Vec<Option<Cursor>>, StoreError> {
        let call = |progress: &Progress| {
            let key = |part: &str| self.keys.conversation(&progress.conversation, part);
            Call::new(&POSITION, &[key("meta"), key("cursors")])
                .arg(progress.user.get())
                .arg(progress.delivered)
                .arg(progress.read)
                .into()
        };
        let replies = self.ask(batch.iter().map(call).collect()).await?;
        batch.iter().zip(replies).map(|(progress, reply)| cursor(progress, reply)).collect()
    }

    async fn ask(&self, commands: Vec<redis::Cmd>) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.client.pipeline(commands).await.map_err(|error: RedisError| {
            tracing::debug!(%error, "store");
            StoreError::Unavailable
        })
    }
}

/// One conversation that cannot be used is passed over, not tried for ever.
fn cursor(progress: &Progress, reply: RedisResult<Value>) -> Result<Option<Cursor>, StoreError> {
    match parse::<(u64, i64, i64, i64, i64)>(reply) {
        Ok((epoch, delivered, read, delivered_before, read_before)) => {
            let delivered_grew = delivered > delivered_before;
            Ok(Some(Cursor {
                epoch,
                delivered,
                read,
                delivered_grew,
                read_grew: read > read_before,
                audience: None,
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
