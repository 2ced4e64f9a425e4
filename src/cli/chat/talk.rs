//! The conversation as a state machine: payloads and typed lines in, payloads
//! and lines to show out. No socket, no clock, no terminal.
//!
//! Promises that each message is shown once, that what is shown was in order
//! (live messages wait while history is pulled), and that the positions the
//! gateway is told only ever grow.

use std::time::Duration;

use tokio::time::Instant;

use super::line::{Line, State, content_words, go_away_words};
use super::outbox::{Change, Outbox};
use super::pull::Pull;
use super::received::Received;
use crate::cli::identity::Parties;
use crate::cli::send::{refusal_words, retry_delay, retry_later};
use crate::wire::pb::envelope::Payload;
use crate::wire::pb::{
    Ack, AckStatus, Error, ErrorCode, MessageType, PresenceReq, Push, Ready, Receipt, SendMessageReq,
    send_message_req,
};

/// One conversation, seen from one device.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) parties: Parties,
    pub(super) conversation: String,
    pub(super) received: Received,
    pub(super) pull: Option<Pull>,
    /// Read by this user, on whichever device, when the chat began.
    pub(super) read_before: i64,
    pub(super) epoch: u64,
    outbox: Outbox,
    gateway: String,
    connected: bool,
    shown: i64,
    told_delivered: i64,
    told_read: i64,
    typing_until: Option<Instant>,
    out: Vec<Payload>,
    lines: Vec<Line>,
}

impl Talk {
    /// Before the first `connected`.
    pub(super) fn new(parties: Parties) -> Self {
        Self {
            conversation: parties.conversation.text(),
            parties,
            received: Received::default(),
            pull: None,
            read_before: 0,
            epoch: 0,
            outbox: Outbox::default(),
            gateway: String::new(),
            connected: false,
            shown: 0,
            told_delivered: 0,
            told_read: 0,
            typing_until: None,
            out: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// A connection is authenticated.
    pub(super) fn connected(&mut self, ready: &Ready, now: Instant) {
        self.connected = true;
        self.gateway.clone_from(&ready.gateway_id);
        self.told_delivered = 0;
        self.told_read = 0;
        let position =
            ready.conversations.iter().find(|position| position.conversation_id == self.conversation);
        if let Some(position) = position {
            let mut changes = self.outbox.delivered(position.peer_delivered_seq);
            changes.extend(self.outbox.read(position.peer_read_seq));
            self.changed(changes);
            self.read_before = self.read_before.max(position.read_seq);
            self.catch_up(position, now);
        } else if self.parties.peer().is_none() {
            // Not among the latest, or not there: the answer tells.
            self.look(now);
        }
        self.tell_positions();
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.typing_until = None;
        self.outbox.disconnected();
        self.out.clear();
        self.end_pull();
    }

    /// Sends a text under a fresh id.
    pub(super) fn say(&mut self, id: String, text: String, at_ms: i64) {
        self.lines.push(Line::Typed { text: text.clone(), at_ms });
        self.outbox.push(id, text);
    }

    /// Asks who is there.
    pub(super) fn who(&mut self, device: &str) {
        let (me, other, gateway) = (self.parties.me, self.parties.other(), &self.gateway);
        self.notice(format!("you are user {me}, device {device}, on gateway {gateway}; talking to {other}"));
        if let Some(peer) = self.parties.peer() {
            self.out.push(Payload::Presence(PresenceReq { user_ids: vec![peer.get()], watch: true }));
        }
    }

    /// Something to tell the user.
    pub(super) fn notice(&mut self, text: String) {
        self.lines.push(Line::Notice(text));
    }

    /// Takes one payload.
    pub(super) fn on(&mut self, payload: Payload, now: Instant) {
        match payload {
            Payload::Push(push) => self.on_push(push),
            Payload::PushBatch(batch) => batch.messages.into_iter().for_each(|push| self.on_push(push)),
            Payload::SyncResp(page) => self.on_page(page, now),
            Payload::Hint(hint) if hint.conversation_id == self.conversation => {
                self.pull_later(now + Duration::from_millis(hint.pull_delay_ms.into()));
            }
            Payload::Ack(ack) => self.on_ack(ack, now),
            Payload::Read(receipt) if self.is_peers(&receipt.conversation_id, receipt.by_user_id) => {
                let changes = self.outbox.read(receipt.read_seq);
                self.changed(changes);
            }
            Payload::Typing(typing) if self.is_peers(&typing.conversation_id, typing.by_user_id) => {
                self.typing_until = typing.active.then(|| now + TYPING_LASTS);
            }
            Payload::ConversationEvent(event) if event.conversation_id == self.conversation => {
                self.on_change(&event, now);
            }
            Payload::PresenceEvent(event) if self.is_peer(event.user_id) => {
                let devices = event.device_ids.join(", ");
                let state = if event.online { "online" } else { "offline" };
                let on = if devices.is_empty() { String::new() } else { format!(" on {devices}") };
                self.notice(format!("user {} is {state}{on}", event.user_id));
            }
            Payload::Error(error) => self.on_error(error, now),
            Payload::GoAway(go_away) => self.notice(go_away_words(&go_away)),
            _ => {}
        }
        self.tell_positions();
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.typing_until = self.typing_until.filter(|until| now < *until);
        self.tick_pull(now);
        if !self.connected {
            return;
        }
        for (client_msg_id, text) in self.outbox.due(now) {
            self.out.push(Payload::Send(SendMessageReq {
                conversation_id: self.conversation.clone(),
                client_msg_id,
                r#type: MessageType::Text.into(),
                content: Some(send_message_req::Content::TextContent(text)),
                meta: [].into(),
            }));
        }
        self.tell_positions();
    }

    /// When `tick` has something to do next.
    pub(super) fn wake(&self) -> Option<Instant> {
        let outbox = if self.connected { self.outbox.wake() } else { None };
        [outbox, self.typing_until, self.pull.as_ref().map(|pull| pull.due)].into_iter().flatten().min()
    }

    /// What to send, in order.
    pub(super) fn take_out(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.out)
    }

    /// What to show, in order.
    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// What the prompt shows.
    pub(super) fn state(&self) -> State {
        State {
            tick: self.outbox.tick(),
            pending: self.outbox.pending(),
            typing: self.typing_until.is_some(),
            connected: self.connected,
        }
    }

    pub(super) fn ask(&mut self, payload: Payload) {
        self.out.push(payload);
    }

    /// Shows a message that was not seen before.
    pub(super) fn show(&mut self, push: &Push) {
        if self.outbox.owns(&push.client_msg_id) && push.from_user_id == self.parties.me.get() {
            // The push of one's own message may overtake its ack.
            let changes = self.outbox.stored(&push.client_msg_id, push.seq);
            self.changed(changes);
            self.received.note(&push.server_msg_id, push.seq);
            return;
        }
        if !self.received.note(&push.server_msg_id, push.seq) {
            return;
        }
        let (text, at_ms, fresh) = (content_words(push), push.server_time, push.seq > self.read_before);
        if push.from_user_id == self.parties.me.get() {
            // One knows what one wrote, read marker or not.
            let fresh = fresh && !self.pull.as_ref().is_some_and(Pull::is_history);
            self.lines.push(Line::Own { text, at_ms, fresh });
        } else {
            self.typing_until = None;
            self.shown = self.shown.max(push.seq);
            self.lines.push(Line::Peer { from: push.from_user_id, text, at_ms, fresh });
        }
    }

    fn on_push(&mut self, push: Push) {
        if push.conversation_id != self.conversation {
            return;
        }
        match &mut self.pull {
            Some(pull) if pull.begun => pull.waiting.push(push),
            _ => self.show(&push),
        }
    }

    fn on_ack(&mut self, ack: Ack, now: Instant) {
        if ack.client_msg_id.is_empty() {
            if ack.status() == AckStatus::Delivered && self.is_peers(&ack.conversation_id, ack.by_user_id) {
                let changes = self.outbox.delivered(ack.seq);
                self.changed(changes);
            }
            return;
        }
        match (&ack.error, ack.status()) {
            (None, AckStatus::Stored) => {
                if self.outbox.owns(&ack.client_msg_id) {
                    self.received.note(&ack.server_msg_id, ack.seq);
                }
                let changes = self.outbox.stored(&ack.client_msg_id, ack.seq);
                self.changed(changes);
            }
            (None, AckStatus::Failed) => {
                self.refused(&ack.client_msg_id, "the gateway gave no reason".to_owned())
            }
            (Some(error), _) => self.answered(&ack.client_msg_id, error, now),
            (None, _) => {}
        }
    }

    fn on_error(&mut self, error: Error, now: Instant) {
        if !error.ref_client_msg_id.is_empty() {
            return self.answered(&error.ref_client_msg_id.clone(), &error, now);
        }
        let about_pull = self.pull.as_ref().is_some_and(|pull| pull.request_id == error.ref_request_id);
        if error.code() == ErrorCode::ResyncRequired && error.conversation_id == self.conversation {
            return self.resync(error.current.as_ref(), now);
        }
        if about_pull && retry_later(&error) {
            return self.pull_later(now + retry_delay(&error));
        }
        if about_pull {
            self.end_pull();
        }
        if error.code() == ErrorCode::NotFound && self.parties.peer().is_none() {
            self.notice(format!("there is no {}, or you are not in it", self.conversation));
        } else if error.code() != ErrorCode::Unsupported {
            self.notice(format!("the gateway says: {}", refusal_words(&error)));
        }
    }

    fn answered(&mut self, id: &str, error: &Error, now: Instant) {
        if retry_later(error) {
            self.outbox.retry_later(id, now + retry_delay(error));
        } else {
            self.refused(id, refusal_words(error));
        }
    }

    fn refused(&mut self, id: &str, why: String) {
        if self.outbox.failed(id) {
            self.lines.push(Line::Failed { why });
        }
    }

    fn changed(&mut self, changes: Vec<Change>) {
        self.lines.extend(changes.into_iter().map(Line::Tick));
    }

    /// Tells the gateway what this device holds and its user read.
    fn tell_positions(&mut self) {
        if !self.connected {
            return;
        }
        let conversation_id = &self.conversation;
        if let Some(seq) = self.received.upto().filter(|seq| *seq > self.told_delivered) {
            self.told_delivered = seq;
            let (status, conversation_id) = (AckStatus::Delivered.into(), conversation_id.clone());
            self.out.push(Payload::Ack(Ack { status, conversation_id, seq, ..Ack::default() }));
        }
        if self.shown > self.told_read.max(self.read_before) {
            self.told_read = self.shown;
            let (conversation_id, read_seq) = (conversation_id.clone(), self.shown);
            self.out.push(Payload::Read(Receipt { conversation_id, read_seq, ..Receipt::default() }));
        }
    }

    fn is_peers(&self, conversation: &str, user: i64) -> bool {
        conversation == self.conversation && self.is_peer(user)
    }

    fn is_peer(&self, user: i64) -> bool {
        self.parties.peer().is_some_and(|peer| peer.get() == user)
    }
}

/// A peer that typed is taken to be typing for this long.
const TYPING_LASTS: Duration = Duration::from_secs(6);

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
