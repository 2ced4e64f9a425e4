//! What is in the logs and what was sent, by name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Event, Message};
use super::truth::{History, Stay};
use super::violation::Violation;

/// A sender's own name of a message: user, conversation, clientMsgId.
pub(super) type SentId = (i64, Arc<str>, Arc<str>);

/// Indexes of one run.
#[derive(Debug, Default)]
pub(super) struct Ledger<'a> {
    history: Option<&'a History>,
    /// Conversation and server name → the message.
    stored: HashMap<(Arc<str>, Arc<str>), &'a Message>,
    /// A sender's name → place in the log.
    places: HashMap<SentId, i64>,
    /// A sender's name → digest.
    sent: HashMap<SentId, u64>,
    /// Users whose sends are known.
    senders: HashSet<i64>,
    /// Conversation, epoch, place → server name.
    names: HashMap<(Arc<str>, u64, i64), Arc<str>>,
}

impl<'a> Ledger<'a> {
    /// Of `history`, with what is wrong in the logs themselves.
    pub(super) fn new(history: &'a History, wrong: &mut Vec<Violation>) -> Self {
        let mut ledger = Self { history: Some(history), ..Self::default() };
        for client in &history.clients {
            ledger.senders.insert(client.user);
            for record in &client.records {
                if let Event::Sent { conversation, client_msg_id, digest } = &record.event {
                    let id = (client.user, Arc::clone(conversation), Arc::clone(client_msg_id));
                    ledger.sent.insert(id, *digest);
                }
            }
        }
        for (conversation, log) in &history.logs {
            let expected = log.first_available.max(1)..=log.top;
            let have: HashSet<i64> = log.messages.iter().map(|message| message.seq).collect();
            wrong.extend(
                expected
                    .filter(|seq| !have.contains(seq))
                    .map(|seq| Violation::LogHole { conversation: Arc::clone(conversation), seq }),
            );
            for message in &log.messages {
                ledger.enter(message, wrong);
            }
        }
        ledger
    }

    fn enter(&mut self, message: &'a Message, wrong: &mut Vec<Violation>) {
        let Message { conversation, seq, epoch, server_msg_id, client_msg_id, from, .. } = message;
        let sent = (*from, Arc::clone(conversation), Arc::clone(client_msg_id));
        if let Some(first) = self.places.insert(sent, *seq) {
            wrong.push(Violation::Twice {
                conversation: Arc::clone(conversation),
                from: *from,
                id: Arc::clone(client_msg_id),
                first,
                second: *seq,
            });
        }
        self.named(conversation, *epoch, *seq, server_msg_id, wrong);
        self.is_as_sent(message, wrong);
        self.stored.insert((Arc::clone(conversation), Arc::clone(server_msg_id)), message);
    }

    /// Somebody was told that `id` is at this place of this epoch.
    pub(super) fn named(
        &mut self,
        conversation: &Arc<str>,
        epoch: u64,
        seq: i64,
        id: &Arc<str>,
        wrong: &mut Vec<Violation>,
    ) {
        let one = self.names.entry((Arc::clone(conversation), epoch, seq)).or_insert_with(|| Arc::clone(id));
        if one != id {
            wrong.push(Violation::TwoMessages {
                conversation: Arc::clone(conversation),
                seq,
                epoch,
                one: Arc::clone(one),
                other: Arc::clone(id),
            });
        }
    }

    /// A message that somebody got, or that the log has: its sender sent it so.
    pub(super) fn is_as_sent(&self, message: &Message, wrong: &mut Vec<Violation>) {
        let id = (message.from, Arc::clone(&message.conversation), Arc::clone(&message.client_msg_id));
        // Of a sender without a log nothing is known.
        if self.senders.contains(&message.from) && self.sent.get(&id) != Some(&message.digest) {
            wrong.push(Violation::Content {
                conversation: Arc::clone(&message.conversation),
                seq: message.seq,
                id: Arc::clone(&message.server_msg_id),
            });
        }
    }

    /// The message of this name in the final log.
    pub(super) fn stored(&self, conversation: &Arc<str>, id: &Arc<str>) -> Option<&'a Message> {
        self.stored.get(&(Arc::clone(conversation), Arc::clone(id))).copied()
    }

    /// Whether the final log has the message of this name at this place.
    pub(super) fn keeps(&self, conversation: &Arc<str>, id: &Arc<str>, seq: i64) -> bool {
        seq < self.first_available(conversation)
            || self.stored(conversation, id).is_some_and(|message| message.seq == seq)
    }

    /// Where the log has what a sender calls so.
    pub(super) fn place(&self, id: &SentId) -> Option<i64> {
        self.places.get(id).copied()
    }

    /// The oldest seq that is kept.
    pub(super) fn first_available(&self, conversation: &Arc<str>) -> i64 {
        self.history.and_then(|history| history.logs.get(conversation)).map_or(0, |log| log.first_available)
    }

    /// The stays of `user` in a conversation.
    pub(super) fn stays(&self, conversation: &Arc<str>, user: i64) -> impl Iterator<Item = &'a Stay> {
        let stays = self.history.and_then(|history| history.members.get(conversation));
        stays.map(Vec::as_slice).unwrap_or_default().iter().filter(move |stay| stay.user == user)
    }
}
