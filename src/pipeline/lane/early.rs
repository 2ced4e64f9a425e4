//! The planted bug *publish before append*: a batch is delivered with the
//! seqs it is going to have, if all goes well.

use std::collections::HashMap;

use super::{Outgoing, Pending};
use crate::hub::Class;
use crate::planted::{Bug, has, top};
use crate::telemetry::FrameKind;
use crate::types::ConversationId;
use crate::wire::pb::Push;
use crate::wire::{Payload, reply};

/// What is delivered too early; nothing unless the bug is active.
pub(super) fn early(batch: &[Pending]) -> Vec<Outgoing> {
    if !has(Bug::PublishBeforeAppend) {
        return Vec::new();
    }
    let mut guesses: HashMap<String, (u64, i64)> = HashMap::new();
    let guess = |pending: &Pending| {
        let ConversationId::P2p(lo, hi) = pending.append.conversation else { return None };
        let conversation = pending.append.push.conversation_id.clone();
        let known = guesses.get(&conversation).copied().or_else(|| top(&conversation))?;
        let (epoch, seq) = (known.0, known.1 + 1);
        guesses.insert(conversation, (epoch, seq));
        let push = Push { epoch, seq, ..pending.append.push.clone() };
        let envelope = reply("", Payload::Push(push));
        // No copy of a stored message: it is not stored.
        let (class, kind) = (Class::Control, FrameKind::Push);
        // To the other one: whoever sent it waits for his ack.
        let users = [lo, hi].into_iter().filter(|user| *user != pending.append.from).collect();
        Some(Outgoing { users, except: None, envelope, class, kind, mark: None, audience: None })
    };
    batch.iter().filter_map(guess).collect()
}
