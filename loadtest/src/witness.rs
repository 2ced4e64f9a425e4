//! Clients whose every word goes through the history checker.
//!
//! Of many thousand clients only some are watched: what all of them see is
//! too much to keep. The others are counted by the scenarios themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::check::{digest, read_log};
use crate::ground::Side;
use crate::history::{ClientLog, Event, History, How, Message, Record, Rules, Stay, Verdict, check};
use crate::scan::{Ack, Push, Seen};
use crate::swarm::Told;
use crate::target::DEVICE;

/// `ERROR_CODE_RESYNC_REQUIRED`.
const RESYNC: u64 = 8;

/// The watched ones.
#[derive(Debug)]
pub(crate) struct Witness {
    start: Instant,
    /// By client.
    logs: BTreeMap<u32, ClientLog>,
    conversations: BTreeMap<Arc<str>, Vec<i64>>,
}

impl Witness {
    /// Of these clients, which are users from `first_user` on.
    pub(crate) fn of(clients: Vec<u32>, first_user: u64) -> Result<Self> {
        let first = i64::try_from(first_user).context("first user")?;
        let log = |index: u32| {
            let user = first + i64::from(index);
            (index, ClientLog { user, device: DEVICE.to_owned(), records: Vec::new() })
        };
        let logs = clients.into_iter().map(log).collect();
        Ok(Self { start: Instant::now(), logs, conversations: BTreeMap::new() })
    }

    /// Whether client `index` is watched.
    pub(crate) fn watches(&self, index: u32) -> bool {
        self.logs.contains_key(&index)
    }

    /// All that are.
    pub(crate) fn clients(&self) -> Vec<u32> {
        self.logs.keys().copied().collect()
    }

    /// A conversation of watched users, without a message so far.
    pub(crate) fn enter(&mut self, conversation: &str, users: Vec<i64>) {
        self.conversations.insert(Arc::from(conversation), users);
    }

    /// Users of the watched clients.
    pub(crate) fn users(&self) -> Vec<i64> {
        self.logs.values().map(|log| log.user).collect()
    }

    /// Client `index` begins a connection.
    pub(crate) fn connected(&mut self, index: u32) {
        self.note(index, Instant::now(), Event::Connected { to: String::new(), resume: Vec::new() });
    }

    /// Client `index` sent a message for the first time.
    pub(crate) fn sent(&mut self, index: u32, conversation: &str, client_msg_id: &str, text: &str) {
        let Some(conversation) = self.name(conversation.as_bytes()) else { return };
        let event =
            Event::Sent { conversation, client_msg_id: Arc::from(client_msg_id), digest: digest(text) };
        self.note(index, Instant::now(), event);
    }

    /// Client `index` was told something.
    pub(crate) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) {
        if !self.watches(index) {
            return;
        }
        let event = match told {
            Told::Said(Seen::Ready) => Some(Event::Ready { gateway: String::new(), positions: Vec::new() }),
            Told::Said(Seen::Ack(ack)) => self.acked(ack),
            Told::Said(Seen::Push(push, how)) => self.received(push, *how),
            Told::Said(Seen::Error { code: RESYNC, conversation, .. }) => {
                self.name(conversation).map(|conversation| Event::resync(&conversation))
            }
            Told::Gone(why) => Some(Event::Disconnected { why: Some(format!("{why:#}")) }),
            Told::Said(_) => None,
        };
        if let Some(event) = event {
            self.note(index, at, event);
        }
    }

    /// Client `index` left by itself.
    pub(crate) fn left(&mut self, index: u32) {
        self.note(index, Instant::now(), Event::Disconnected { why: None });
    }

    fn acked(&self, ack: &Ack<'_>) -> Option<Event> {
        let conversation = self.name(ack.conversation)?;
        let client_msg_id = text(ack.client_msg_id);
        match ack.status {
            Ack::STORED => Some(Event::Acked {
                conversation,
                client_msg_id,
                server_msg_id: text(ack.server_msg_id),
                seq: ack.seq,
                epoch: ack.epoch,
                duplicate: ack.duplicate,
                level: u32::try_from(ack.level).unwrap_or(0),
            }),
            Ack::FAILED if !Ack::PUT_OFF.contains(&ack.error) => {
                Some(Event::Failed { conversation, client_msg_id, code: ack.error.to_string() })
            }
            _ => None,
        }
    }

    fn received(&self, push: &Push<'_>, how: How) -> Option<Event> {
        let message = Message {
            conversation: self.name(push.conversation)?,
            seq: push.seq,
            epoch: push.epoch,
            server_msg_id: text(push.server_msg_id),
            client_msg_id: text(push.client_msg_id),
            from: push.from,
            digest: digest(std::str::from_utf8(push.text).unwrap_or_default()),
        };
        Some(Event::Received { message, how })
    }

    fn name(&self, conversation: &[u8]) -> Option<Arc<str>> {
        let id = std::str::from_utf8(conversation).ok()?;
        self.conversations.get_key_value(id).map(|(id, _)| Arc::clone(id))
    }

    fn note(&mut self, index: u32, at: Instant, event: Event) {
        if let Some(log) = self.logs.get_mut(&index) {
            log.records.push(Record { at: at.saturating_duration_since(self.start), event });
        }
    }

    /// How much is noted of each client.
    #[cfg(test)]
    pub(crate) fn heard(&self) -> Vec<usize> {
        self.logs.values().map(|log| log.records.len()).collect()
    }

    /// Reads the conversations as they are now, and judges.
    pub(crate) fn judge(self, side: &Side) -> Result<Verdict> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let gateways = side.targets.addresses();
        let mut history = History { clients: self.logs.into_values().collect(), ..History::default() };
        for (conversation, users) in self.conversations {
            let reader = users.first().context("a conversation without a user")?;
            let log = runtime.block_on(read_log(&gateways, *reader, &conversation))?;
            history.logs.insert(Arc::clone(&conversation), log);
            let stay = |user: &i64| Stay { user: *user, since_seq: 0, until_seq: None };
            history.members.insert(conversation, users.iter().map(stay).collect());
        }
        Ok(check(&history, &Rules::default()))
    }
}

fn text(bytes: &[u8]) -> Arc<str> {
    Arc::from(String::from_utf8_lossy(bytes))
}
