//! A commit in the making: what its work has written so far, over what is on
//! disk.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use prost::Message;

use super::Shared;
use super::engine::{Engine, EngineError, Ids};
use super::rows::{self, Head, Original, Space};
use crate::types::{ConversationId, unix_micros, unix_ms};

/// Ids are kept by periods of this length and forgotten with a period whose
/// end is as long ago: after 7 to 14 days.
pub(super) const PERIOD_MS: i64 = 7 * 24 * 3600 * 1000;

/// Room for what a commit has as a rule.
const ROOM: usize = 128;

/// See above. Dropped, it was never there.
pub(super) struct Staged {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    ids: Arc<Ids>,
    /// Of the ids that are written.
    period: i64,
    rows: Rows,
    /// Nobody looks for them within the commit.
    messages: Vec<Logged>,
    heads: Heads,
    /// Histories that began anew.
    pub(super) raised: u64,
}

/// Rows by their keys; one without a value is removed.
pub(super) type Rows = HashMap<(Space, Vec<u8>), Option<Vec<u8>>, RandomState>;

/// A message's row.
pub(super) type Logged = ([u8; 16], Vec<u8>);

/// Conversations; one without a head is removed.
pub(super) type Heads = HashMap<ConversationId, Option<Arc<Head>>, RandomState>;

/// What a commit is made of.
pub(super) struct Content {
    pub(super) messages: Vec<Logged>,
    /// All but the messages.
    pub(super) rows: Rows,
    /// As they are once it is done.
    pub(super) heads: Heads,
    /// Histories that began anew.
    pub(super) raised: u64,
}

impl Staged {
    pub(super) fn new(engine: Arc<Engine>, shared: Arc<Shared>) -> Self {
        let (ids, period) = (engine.ids(), unix_ms() / PERIOD_MS);
        let rows = Rows::with_capacity_and_hasher(ROOM, RandomState::default());
        let heads = Heads::with_capacity_and_hasher(ROOM, RandomState::default());
        let messages = Vec::with_capacity(ROOM);
        Self { engine, shared, ids, period, rows, messages, heads, raised: 0 }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.messages.is_empty() && self.heads.is_empty()
    }

    pub(super) fn into_content(self) -> Content {
        Content { messages: self.messages, rows: self.rows, heads: self.heads, raised: self.raised }
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

    /// What the id with this key ([`rows::id`]) was used for.
    pub(super) fn original(&self, key: Vec<u8>) -> Result<(Vec<u8>, Option<Original>), EngineError> {
        let place = (Space::Ids(self.period), key);
        if let Some(Some(row)) = self.rows.get(&place) {
            let original = Original::decode(&row[..])?;
            return Ok((place.1, Some(original)));
        }
        for ids in self.ids.values().rev() {
            if let Some(row) = ids.get(&place.1)? {
                return Ok((place.1, Some(Original::decode(&row[..])?)));
            }
        }
        Ok((place.1, None))
    }

    pub(super) fn put_original(&mut self, key: Vec<u8>, original: &Original) {
        self.put(Space::Ids(self.period), key, original);
    }
}
