//! The conversations in use, kept in memory.
//!
//! Written by the committer, once a commit is done. A reader may add what it
//! read, but only where nothing is and nothing was taken away meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use prost::Message;

use super::engine::{Engine, EngineError};
use super::rows::{self, Head, Space};
use super::staged;
use crate::types::ConversationId;
use crate::wire::pb::Push;

/// Most conversations kept; some 300 bytes each.
const MOST: usize = 32_768;

#[derive(Debug, Default)]
struct Kept {
    heads: HashMap<ConversationId, Arc<Head>, RandomState>,
    /// How often something was taken away.
    forgotten: u64,
}

impl Kept {
    fn make_room(&mut self) {
        if self.heads.len() >= MOST {
            self.heads.clear();
            self.forgotten += 1;
        }
    }
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Kept>);

impl Heads {
    /// The head, if it is in memory.
    pub(super) fn kept(&self, conversation: &ConversationId) -> Option<Arc<Head>> {
        self.0.lock().heads.get(conversation).cloned()
    }

    /// The head, from memory or disk; `None` = there is no such conversation.
    pub(super) fn get(
        &self,
        engine: &Engine,
        conversation: &ConversationId,
    ) -> Result<Option<Arc<Head>>, EngineError> {
        let before = {
            let kept = self.0.lock();
            if let Some(head) = kept.heads.get(conversation) {
                return Ok(Some(Arc::clone(head)));
            }
            kept.forgotten
        };
        let Some(head) = load(engine, conversation)?.map(Arc::new) else { return Ok(None) };
        let mut kept = self.0.lock();
        if let Some(newer) = kept.heads.get(conversation) {
            return Ok(Some(Arc::clone(newer)));
        }
        if kept.forgotten == before {
            kept.make_room();
            kept.heads.insert(conversation.clone(), Arc::clone(&head));
        }
        Ok(Some(head))
    }

    /// What a commit made of them; `None` = removed.
    pub(super) fn publish(&self, changed: staged::Heads) {
        let mut kept = self.0.lock();
        for (conversation, head) in changed {
            match head {
                Some(head) => {
                    kept.make_room();
                    kept.heads.insert(conversation, head);
                }
                None => {
                    kept.heads.remove(&conversation);
                    kept.forgotten += 1;
                }
            }
        }
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let mut kept = self.0.lock();
        kept.heads.clear();
        kept.forgotten += 1;
    }
}

fn load(engine: &Engine, conversation: &ConversationId) -> Result<Option<Head>, EngineError> {
    let Some(row) = engine.get(Space::State, &rows::head(conversation))? else { return Ok(None) };
    let mut head = Head::decode(&row[..])?;
    let span = (&rows::message(head.number, 0)[..], &rows::message(head.number, i64::MAX)[..]);
    let mut last = None;
    engine.messages(span, true, |key, value| {
        last = Some((key.to_vec(), value.to_vec()));
        false
    })?;
    if let Some((key, value)) = last
        && let Some(seq) = rows::seq(&key).filter(|seq| *seq > head.top)
    {
        head.top = seq;
        head.last_id = Push::decode(&value[..])?.server_msg_id;
    }
    Ok(Some(head))
}

impl Head {
    /// The first seq that is still there, as [`crate::store::Page`] tells it.
    pub(super) fn first_available(&self) -> i64 {
        if self.top == 0 { 0 } else { self.trimmed.saturating_add(1) }
    }
}
