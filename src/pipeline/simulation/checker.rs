//! What must be so once everything has settled.

use std::collections::HashSet;
use std::sync::Arc;

use super::client::Client;
use super::world::World;
use crate::types::ConversationId;

/// What a client lacks of its conversations; `acknowledged` = of what senders
/// were promised, else of all that is there.
pub(super) fn lacks(world: &World, clients: &[Arc<Client>], acknowledged: bool) {
    for client in clients {
        let who = format!("{}/{}", client.user, client.device);
        if client.connected.lock().is_none() {
            world.trace.violation(None, format!("{who} is not connected"));
            continue;
        }
        if client.waiting() > 0 {
            world.trace.violation(None, format!("{who} has {} sends without an answer", client.waiting()));
        }
        for conversation in world.of(client.user) {
            of_one(world, client, &conversation, &who, acknowledged);
        }
    }
}

fn of_one(world: &World, client: &Client, conversation: &ConversationId, who: &str, acknowledged: bool) {
    let Some(since) = world.since(conversation, client.user) else { return };
    let ledger = client.ledger.lock();
    let known = ledger.known.get(conversation);
    let base = known.map_or(since, |known| known.base.max(since));
    let acked = world.acked.lock();
    let promised: HashSet<&str> = acked.values().map(|acked| acked.id.as_str()).collect();
    for message in world.model.all(conversation).iter().filter(|message| message.seq > base) {
        if acknowledged && !promised.contains(message.server_msg_id.as_str()) {
            continue;
        }
        let has = known.and_then(|known| known.have.get(&message.seq));
        if has != Some(&message.server_msg_id) {
            let (seq, id) = (message.seq, &message.client_msg_id);
            let text = format!(
                "{who} lacks {seq} ({id}): it has {has:?}, and all from {base} to {}",
                known.map_or(base, super::ledger::Known::upto)
            );
            return world.trace.violation(Some(conversation), text);
        }
    }
}

/// What is wrong with the log itself.
pub(super) fn log(world: &World) {
    let acked = world.acked.lock();
    for conversation in world.conversations() {
        let all = world.model.all(&conversation);
        let mut ids = HashSet::new();
        for message in &all {
            if !ids.insert((message.from_user_id, message.client_msg_id.clone())) {
                let text = format!("{} is stored twice", message.client_msg_id);
                world.trace.violation(Some(&conversation), text);
            }
        }
        for ((of, _, client_msg_id), acked) in acked.iter().filter(|((of, ..), _)| *of == conversation) {
            if !all.iter().any(|m| m.seq == acked.seq && m.server_msg_id == acked.id) {
                world.trace.violation(Some(of), format!("{client_msg_id} was promised and is not stored"));
            }
        }
    }
}
