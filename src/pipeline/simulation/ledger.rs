//! What a client has of its conversations, over all its connections.

use std::collections::BTreeMap;

use crate::types::ConversationId;
use crate::wire::pb::Position;

/// One conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// It does not want what comes before, or cannot have it.
    pub base: i64,
    pub epoch: u64,
    /// Seq → serverMsgId.
    pub have: BTreeMap<i64, String>,
}

impl Known {
    pub(super) fn behind(base: i64, epoch: u64) -> Self {
        Self { base, epoch, have: BTreeMap::new() }
    }

    /// It has everything up to here.
    pub(super) fn upto(&self) -> i64 {
        let mut upto = self.base;
        while self.have.contains_key(&(upto + 1)) {
            upto += 1;
        }
        upto
    }

    /// Whether something is missing before something it has.
    pub(super) fn has_hole(&self) -> bool {
        self.have.last_key_value().is_some_and(|(last, _)| *last > self.upto())
    }

    /// What comes before is not to be had.
    pub(super) fn skip_to(&mut self, base: i64) {
        self.base = self.base.max(base);
    }

    pub(super) fn id_at(&self, seq: i64) -> String {
        self.have.get(&seq).cloned().unwrap_or_default()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub known: BTreeMap<ConversationId, Known>,
}

impl Ledger {
    /// Notes a message; the id that stood there, if it was another one.
    pub(super) fn add(
        &mut self,
        conversation: &ConversationId,
        epoch: u64,
        seq: i64,
        id: &str,
    ) -> Option<String> {
        let known = self.known.entry(conversation.clone()).or_insert_with(|| Known::behind(seq - 1, epoch));
        known.epoch = epoch;
        if seq <= known.base {
            return None;
        }
        known.have.insert(seq, id.to_owned()).filter(|before| before != id)
    }

    /// What a returning client says.
    pub(super) fn positions(&self) -> Vec<Position> {
        let position = |(conversation, known): (&ConversationId, &Known)| {
            let seq = known.upto();
            Position {
                conversation_id: conversation.to_string(),
                epoch: known.epoch,
                seq,
                server_msg_id: known.id_at(seq),
                ..Position::default()
            }
        };
        self.known.iter().map(position).collect()
    }
}

/// Where one connection is in one conversation: every message up to here has
/// come over it, or before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub epoch: u64,
    pub seq: i64,
}
