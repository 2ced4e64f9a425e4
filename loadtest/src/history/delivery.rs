//! Whether everybody has everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::Message;
use super::ledger::Ledger;
use super::truth::History;
use super::violation::Violation;
use super::walk::{Knowledge, Walked};

/// When each message was first acknowledged, by conversation and name.
pub(super) type Acked = HashMap<(Arc<str>, Arc<str>), Duration>;

/// Holds what every member knows against the final logs.
pub(super) fn judge(
    history: &History,
    ledger: &Ledger<'_>,
    walked: &[Walked<'_>],
    acked: &Acked,
    live_within: Option<Duration>,
    wrong: &mut Vec<Violation>,
) {
    let nothing = Knowledge::default();
    for client in walked {
        for (conversation, log) in &history.logs {
            // Whoever was removed has no claim to what he had not got yet.
            let Some(stay) =
                ledger.stays(conversation, client.log.user).find(|stay| stay.until_seq.is_none())
            else {
                continue;
            };
            let knowledge = client.knowledge.get(conversation).unwrap_or(&nothing);
            let highest = knowledge.known.values().map(|known| known.seq).max().unwrap_or(0);
            for message in log.messages.iter().filter(|message| stay.covers(message.seq)) {
                let at = acked.get(&(Arc::clone(conversation), Arc::clone(&message.server_msg_id)));
                let has = knowledge.known.contains_key(&message.server_msg_id);
                if !has && message.seq >= knowledge.trimmed {
                    wrong.extend(absent(client, message, at.is_some(), highest));
                }
                if let (Some(acked), Some(bound)) = (at, live_within)
                    && is_late(client, knowledge, message, *acked, bound)
                {
                    wrong.push(Violation::Late {
                        client: client.name.clone(),
                        conversation: Arc::clone(conversation),
                        seq: message.seq,
                        id: Arc::clone(&message.server_msg_id),
                    });
                }
            }
        }
    }
}

fn absent(client: &Walked<'_>, message: &Message, acked: bool, highest: i64) -> Option<Violation> {
    let (name, conversation) = (client.name.clone(), Arc::clone(&message.conversation));
    let (seq, id) = (message.seq, Arc::clone(&message.server_msg_id));
    if acked {
        Some(Violation::Missing { client: name, conversation, seq, id })
    } else {
        // Nobody was promised it, but what stands behind it was.
        (highest > seq).then_some(Violation::Hole { client: name, conversation, seq })
    }
}

fn is_late(
    client: &Walked<'_>,
    knowledge: &Knowledge,
    message: &Message,
    acked: Duration,
    bound: Duration,
) -> bool {
    let due = acked + bound;
    let served = client.served.iter().any(|(from, to)| *from <= acked && due <= *to);
    served && knowledge.heard.get(&message.server_msg_id).is_none_or(|heard| *heard > due)
}
