//! Appending to a log.

use super::engine::EngineError;
use super::rows::{self, Activity, Head, MemberRow, Original, Space};
use super::staged::Staged;
use crate::store::{Append, Appended, Refused, encode};
use crate::types::{ConversationId, UserId, unix_micros, unix_ms};

/// A user's index is written at most this often per conversation, ms.
const INDEX_EVERY: i64 = 60_000;

/// A message on its way to disk.
pub(super) struct Entry {
    pub(super) conversation: ConversationId,
    from: UserId,
    client_msg_id: String,
    original: Original,
    encoded: Vec<u8>,
}

impl Entry {
    pub(super) fn new(append: &Append) -> Self {
        Self {
            conversation: append.conversation.clone(),
            from: append.from,
            client_msg_id: append.client_msg_id.clone(),
            original: Original {
                seq: 0,
                content_hash: append.content_hash,
                server_msg_id: append.server_msg_id.clone(),
                server_time: append.server_time,
            },
            encoded: encode(&append.push).into(),
        }
    }
}

/// Appends, unless the sender may not or it is there already. All is read
/// before anything is written: an error leaves nothing half done.
pub(super) fn append(staged: &mut Staged, entry: Entry) -> Result<Appended, EngineError> {
    let Entry { conversation, from, client_msg_id, mut original, encoded } = entry;
    let is_group = matches!(conversation, ConversationId::Group(_));
    let (mut head, is_new) = match staged.head(&conversation)? {
        Some(head) => (head, false),
        None if is_group => return Ok(Appended::Refused(Refused::NotFound)),
        None => (Head::default(), true),
    };
    let (id, known) = match is_new {
        true => (Vec::new(), None),
        false => staged.original(rows::id(head.number, from, &client_msg_id))?,
    };
    // What is in the log stays acknowledged, also where the sender may no longer.
    let is_same = known.as_ref().is_some_and(|known| known.content_hash == original.content_hash);
    if !is_same && let Some(refused) = refuse(staged, &head, from, is_group)? {
        return Ok(Appended::Refused(refused));
    }
    if is_new {
        head = staged.new_head();
    }
    let is_raised = head.lineage != staged.engine().lineage();
    if is_raised {
        let now = u64::try_from(unix_micros()).unwrap_or(0);
        head.epoch = now.max(head.epoch.saturating_add(1));
        head.lineage = staged.engine().lineage();
        staged.raised += 1;
        staged.put_head(&conversation, head.clone());
    }
    if let Some(known) = known {
        if known.content_hash != original.content_hash {
            return Ok(Appended::Conflict);
        }
        return Ok(Appended::Duplicate {
            seq: known.seq,
            epoch: head.epoch,
            server_msg_id: known.server_msg_id,
            server_time: known.server_time,
        });
    }
    let (seq, epoch) = (head.top.saturating_add(1), head.epoch);
    original.seq = seq;
    staged.put_message(head.number, seq, encoded);
    let id = if is_new { rows::id(head.number, from, &client_msg_id) } else { id };
    staged.put_original(id, &original);
    head.top = seq;
    head.last_id = original.server_msg_id;
    let now = unix_ms();
    if let ConversationId::P2p(lo, hi) = conversation
        && now.saturating_sub(head.indexed_at) >= INDEX_EVERY
    {
        for user in [lo, hi] {
            staged.put(Space::State, rows::index(user, &conversation), &Activity { at: now });
        }
        head.indexed_at = now;
    }
    let author = match conversation {
        ConversationId::P2p(lo, _) if from == lo => 1,
        ConversationId::P2p(_, hi) if from == hi => 2,
        _ => 0,
    };
    let is_first = head.authors & author != author;
    head.authors |= author;
    if is_new || is_raised || is_first {
        staged.put_head(&conversation, head);
    } else {
        staged.advance_head(&conversation, head);
    }
    Ok(Appended::Stored { seq, epoch })
}

fn refuse(
    staged: &Staged,
    head: &Head,
    from: UserId,
    is_group: bool,
) -> Result<Option<Refused>, EngineError> {
    if from == UserId::SYSTEM {
        return Ok(None);
    }
    if head.blocked > 0
        && staged.get::<Activity>(Space::State, rows::blocked(head.number, Some(from)))?.is_some()
    {
        return Ok(Some(Refused::Blocked));
    }
    if !is_group {
        return Ok(None);
    }
    let member: Option<MemberRow> = staged.get(Space::State, rows::member(head.number, Some(from)))?;
    Ok(match member.map(crate::store::Member::from) {
        None => Some(Refused::NotFound),
        Some(member) if member.mute_until > unix_ms() => Some(Refused::Muted(member.mute_until)),
        Some(_) => None,
    })
}
