//! Histories to order: a store that does as told, and clients that see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{ClientLog, Event, FinalLog, History, How, Message, Record, Stay};

pub(super) const CHAT: &str = "p2p:1:2";
pub(super) const GROUP: &str = "g:team";

/// A run in the making: users 1 and 2 in [`CHAT`], 1, 2 and 3 in [`GROUP`],
/// one device each.
pub(super) struct Story {
    pub(super) history: History,
    epoch: u64,
    now: Duration,
    drawn: u64,
}

pub(super) fn arc(text: &str) -> Arc<str> {
    Arc::from(text)
}

impl Story {
    pub(super) fn new() -> Self {
        let client = |user| ClientLog { user, device: "d".into(), records: Vec::new() };
        let stay = |user| Stay { user, since_seq: 0, until_seq: None };
        let members = [(CHAT, vec![1, 2]), (GROUP, vec![1, 2, 3])];
        let mut history = History {
            clients: [1, 2, 3].map(client).into(),
            members: members
                .into_iter()
                .map(|(id, users)| (arc(id), users.into_iter().map(stay).collect()))
                .collect(),
            logs: BTreeMap::new(),
            injections: Vec::new(),
        };
        for id in [CHAT, GROUP] {
            history.logs.insert(arc(id), FinalLog { epoch: 7, first_available: 1, ..FinalLog::default() });
        }
        let mut story = Self { history, epoch: 7, now: Duration::ZERO, drawn: 0 };
        (1..=3).for_each(|user| story.connect(user));
        story
    }

    pub(super) fn note(&mut self, user: i64, event: Event) {
        self.now += Duration::from_millis(1);
        let record = Record { at: self.now, event };
        self.history.clients.iter_mut().find(|client| client.user == user).unwrap().records.push(record);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    pub(super) fn log(&mut self, conversation: &str) -> &mut FinalLog {
        self.history.logs.get_mut(conversation).unwrap()
    }

    pub(super) fn connect(&mut self, user: i64) {
        self.note(user, Event::Connected { to: "gw".into(), resume: Vec::new() });
        self.note(user, Event::Ready { gateway: "gw".into(), positions: Vec::new() });
    }

    pub(super) fn disconnect(&mut self, user: i64) {
        self.note(user, Event::Disconnected { why: Some("lost".into()) });
    }

    /// Sent and stored; the ack and the pushes are separate.
    pub(super) fn store(&mut self, conversation: &str, from: i64, id: &str) -> Message {
        self.drawn += 1;
        let digest = 100 + self.drawn;
        let (conversation, client_msg_id) = (arc(conversation), arc(id));
        self.note(
            from,
            Event::Sent {
                conversation: Arc::clone(&conversation),
                client_msg_id: Arc::clone(&client_msg_id),
                digest,
            },
        );
        let (epoch, server_msg_id) = (self.epoch, arc(&format!("s{}", self.drawn)));
        let log = self.log(&conversation);
        log.top += 1;
        let message =
            Message { seq: log.top, conversation, epoch, server_msg_id, client_msg_id, from, digest };
        log.messages.push(message.clone());
        message
    }

    pub(super) fn ack(&mut self, message: &Message) {
        self.note(
            message.from,
            Event::Acked {
                conversation: Arc::clone(&message.conversation),
                client_msg_id: Arc::clone(&message.client_msg_id),
                server_msg_id: Arc::clone(&message.server_msg_id),
                seq: message.seq,
                epoch: message.epoch,
                duplicate: false,
                level: 1,
            },
        );
    }

    pub(super) fn receive(&mut self, user: i64, message: &Message, how: How) {
        self.note(user, Event::Received { message: message.clone(), how });
    }

    /// Sent, stored, acknowledged, and pushed to every other member.
    pub(super) fn say(&mut self, conversation: &str, from: i64, id: &str) -> Message {
        let message = self.store(conversation, from, id);
        self.ack(&message);
        for user in self.members(conversation) {
            if user != from {
                self.receive(user, &message, How::Live);
            }
        }
        message
    }

    pub(super) fn members(&self, conversation: &str) -> Vec<i64> {
        self.history.members[conversation].iter().map(|stay| stay.user).collect()
    }

    /// The store forgets the newest `count` messages and begins a new epoch.
    pub(super) fn fork(&mut self, conversation: &str, count: usize) {
        self.epoch += 1;
        let epoch = self.epoch;
        let log = self.log(conversation);
        log.messages.truncate(log.messages.len() - count);
        log.top = log.messages.last().map_or(0, |message| message.seq);
        log.epoch = epoch;
        log.messages.iter_mut().for_each(|message| message.epoch = epoch);
    }

    /// Told RESYNC, and everything read again.
    pub(super) fn resync(&mut self, user: i64, conversation: &str) {
        self.note(user, Event::resync(&arc(conversation)));
        for message in self.log(conversation).messages.clone() {
            self.receive(user, &message, How::Pull);
        }
    }

    /// What a client who was away gets.
    pub(super) fn replay(&mut self, user: i64, conversation: &str, from: i64) {
        for message in self.log(conversation).messages.clone() {
            if message.seq >= from && message.from != user {
                self.receive(user, &message, How::Replay);
            }
        }
    }
}
