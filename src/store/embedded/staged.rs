//! A commit in the making: what its work has written so far, over what is on
//! disk.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::Shared;
use super::engine::{Engine, EngineError, Row};
use super::rows::{self, Head, Original, Space};
use crate::types::{ConversationId, UserId, unix_micros, unix_ms};

/// Ids are kept by periods of this length and forgotten with a period whose
/// end is as long ago: after 7 to 14 days.
pub(super) const PERIOD_MS: i64 = 7 * 24 * 3600 * 1000;

/// See above. Dropped, it was never there.
pub(super) struct Staged {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    rows: HashMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    /// Nobody looks for them within the commit.
    messages: Vec<Row>,
    heads: HashMap<ConversationId, Option<Arc<Head>>>,
    /// Histories that began anew.
    pub(super) raised: u64,
}

/// What a commit is made of.
pub(super) struct Content {
    /// A row without a value is removed.
    pub(super) rows: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
    /// As they are once it is done.
    pub(super) heads: HashMap<ConversationId, Option<Arc<Head>>>,
    /// How many messages are among the rows.
    pub(super) messages: u64,
    /// Histories that began anew.
    pub(super) raised: u64,
}

impl Staged {
    pub(super) fn new(engine: Arc<Engine>, shared: Arc<Shared>) -> Self {
        Self { engine, shared, rows: HashMap::new(), messages: Vec::new(), heads: HashMap::new(), raised: 0 }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.messages.is_empty() && self.heads.is_empty()
    }

    pub(super) fn into_content(self) -> Content {
        let messages = u64::try_from(self.messages.len()).unwrap_or(u64::MAX);
        let logged = self.messages.into_iter().map(|(key, value)| (Space::Messages, key, Some(value)));
        let others = self.rows.into_iter().map(|((space, key), value)| (space, key, value));
        Content { rows: logged.chain(others).collect(), heads: self.heads, messages, raised: self.raised }
    }

    /// The conversation, as it is by now.
    pub(super) fn head(&self, conversation: &ConversationId) -> Result<Option<Head>, EngineError> {
        if let Some(head) = self.heads.get(conversation) {
            return Ok(head.as_deref().cloned());
        }
        let head = self.shared.heads.get(&self.engine, conversation)?;
        Ok(head.as_deref().cloned())
    }

    /// A conversation that begins.
    pub(super) fn new_head(&mut self) -> Head {
        let (number, identity) = self.engine.number();
        self.put(Space::State, rows::identity(), &identity);
        Head {
            number,
            epoch: u64::try_from(unix_micros()).unwrap_or(1),
            created_at: unix_ms(),
            lineage: self.engine.lineage(),
            ..Head::default()
        }
    }

    /// Another end of the log, which its last message says too.
    pub(super) fn advance_head(&mut self, conversation: &ConversationId, head: Head) {
        self.heads.insert(conversation.clone(), Some(Arc::new(head)));
    }

    /// Another head.
    pub(super) fn put_head(&mut self, conversation: &ConversationId, head: Head) {
        self.put(Space::State, rows::head(conversation), &head);
        self.advance_head(conversation, head);
    }

    pub(super) fn remove_head(&mut self, conversation: &ConversationId) {
        self.remove(Space::State, rows::head(conversation));
        self.heads.insert(conversation.clone(), None);
    }

    pub(super) fn get<T: Message + Default>(
        &self,
        space: Space,
        key: Vec<u8>,
    ) -> Result<Option<T>, EngineError> {
        let place = (space, key);
        if let Some(row) = self.rows.get(&place) {
            return Ok(row.as_deref().map(T::decode).transpose()?);
        }
        let row = self.engine.get(space, &place.1)?;
        Ok(row.map(|row| T::decode(&row[..])).transpose()?)
    }

    pub(super) fn put(&mut self, space: Space, key: Vec<u8>, value: &impl Message) {
        self.rows.insert((space, key), Some(value.encode_to_vec()));
    }

    pub(super) fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.rows.insert((space, key), None);
    }

    pub(super) fn put_message(&mut self, number: u64, seq: i64, encoded: Vec<u8>) {
        self.messages.push((rows::message(number, seq), encoded));
    }

    /// What this id of the sender's was used for.
    pub(super) fn original(
        &self,
        number: u64,
        from: UserId,
        client_msg_id: &str,
    ) -> Result<Option<Original>, EngineError> {
        let key = rows::id(number, from, client_msg_id);
        let current = unix_ms() / PERIOD_MS;
        let mut periods = self.engine.periods();
        if !periods.contains(&current) {
            periods.push(current);
        }
        for period in periods {
            if let Some(original) = self.get(Space::Ids(period), key.clone())? {
                return Ok(Some(original));
            }
        }
        Ok(None)
    }

    pub(super) fn put_original(
        &mut self,
        number: u64,
        from: UserId,
        client_msg_id: &str,
        original: &Original,
    ) {
        let period = unix_ms() / PERIOD_MS;
        self.put(Space::Ids(period), rows::id(number, from, client_msg_id), original);
    }
}
