//! How a client takes what it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Visit, ms};
use super::ledger::{Known, Reached};
use super::session::Way;
use super::world::Acked;
use crate::types::ConversationId;
use crate::wire::Payload;
use crate::wire::pb::{Ack, AckStatus, Error, ErrorCode, Position, PushBatch, SyncResp};

impl Visit<'_> {
    /// One frame.
    pub(super) fn take(&mut self, payload: Payload) {
        match payload {
            Payload::Ready(ready) => {
                *self.client.connected.lock() = Some((self.session.gateway, Arc::clone(&self.session.peer)));
                self.session.complete = !ready.has_more;
                self.unlisted = ready.has_more.then(Instant::now);
                self.listed(&ready.conversations, true);
            }
            Payload::ConversationsResp(list) => {
                self.unlisted = None;
                self.listed(&list.conversations, false);
            }
            Payload::PushBatch(batch) => self.replayed(&batch),
            Payload::Push(push) => {
                let conversation = ConversationId::parse(&push.conversation_id).unwrap();
                self.session.take(&mut self.client.ledger.lock(), &push, Way::Pushed);
                let hole = self.client.ledger.lock().known.get(&conversation).is_some_and(Known::has_hole);
                if hole {
                    self.want(&conversation, Duration::ZERO);
                }
            }
            Payload::Hint(hint) => {
                let conversation = ConversationId::parse(&hint.conversation_id).unwrap();
                self.session.note(Some(&conversation), &format!("is told to pull up to {}", hint.top_seq));
                self.session.pulling.insert(conversation.clone());
                self.want(&conversation, Duration::from_millis(hint.pull_delay_ms.into()));
            }
            Payload::SyncResp(response) => self.pulled(&response),
            Payload::Ack(ack) => self.acked(&ack),
            Payload::Error(error) => self.failed(&error),
            // Of itself, or that there is no such group any more.
            Payload::ConversationEvent(event) if [0, self.client.user.get()].contains(&event.user_id) => {
                let conversation = ConversationId::parse(&event.conversation_id).unwrap();
                self.session.note(Some(&conversation), &format!("hears: {:?}", event.change()));
                if self.session.pulling.remove(&conversation) {
                    self.session.unsure.insert(conversation.clone());
                }
                self.want(&conversation, Duration::ZERO);
            }
            _ => {}
        }
    }

    /// Where conversations stand; `live` = what comes live is behind it.
    fn listed(&mut self, positions: &[Position], live: bool) {
        for position in positions {
            let conversation = ConversationId::parse(&position.conversation_id).unwrap();
            let (epoch, seq) = (position.epoch, position.seq);
            self.session.note(Some(&conversation), &format!("is told it stands at {seq}"));
            if live {
                self.session.told.insert(conversation.clone(), Reached { epoch, seq });
            }
            if live && !self.session.resumed.contains(&conversation) {
                self.session.go_on_behind(&conversation, epoch, seq);
                self.session.handed_up_to(&conversation, seq);
            }
            let mut ledger = self.client.ledger.lock();
            let known = ledger.known.entry(conversation.clone()).or_insert_with(|| {
                let mut known = Known::behind(if fastrand::bool() { seq } else { 0 }, epoch);
                known.have.extend((known.base > 0).then(|| (seq, position.server_msg_id.clone())));
                known
            });
            let lacks = known.upto() != seq || known.epoch != epoch;
            drop(ledger);
            if lacks {
                self.session.unproved.insert(conversation.clone());
            }
            if lacks && !(live && self.session.resumed.contains(&conversation)) {
                self.want(&conversation, Duration::ZERO);
            }
        }
        if !live {
            return;
        }
        // What the server does not know stood somewhere else, or nowhere.
        let known: Vec<_> = self.client.ledger.lock().known.keys().cloned().collect();
        let named =
            |id: &ConversationId| self.session.resumed.contains(id) || self.session.reached.contains_key(id);
        let unnamed: Vec<_> = known.into_iter().filter(|id| !named(id)).collect();
        for conversation in unnamed {
            self.session.unproved.insert(conversation.clone());
            self.want(&conversation, Duration::ZERO);
        }
    }

    fn replayed(&mut self, batch: &PushBatch) {
        let conversation = ConversationId::parse(&batch.conversation_id).unwrap();
        let mut ledger = self.client.ledger.lock();
        let (upto, epoch) =
            ledger.known.get(&conversation).map_or((0, 0), |known| (known.upto(), known.epoch));
        if let Some(first) = batch.messages.first()
            && first.seq != upto + 1
        {
            if self.client.world.begins(&conversation, self.client.user, first.seq) {
                ledger.known.entry(conversation.clone()).or_default().skip_to(first.seq - 1);
            } else {
                self.session
                    .violation(Some(&conversation), &format!("{} is replayed behind {upto}", first.seq));
            }
        }
        self.session.note(Some(&conversation), &format!("replay of {} behind {upto}", batch.messages.len()));
        for push in &batch.messages {
            self.session.take(&mut ledger, push, Way::Replayed);
        }
        let last = batch.messages.last().map_or((epoch, upto), |last| (last.epoch, last.seq));
        self.session.go_on_behind(&conversation, last.0, last.1);
        self.session.handed_up_to(&conversation, last.1);
    }

    fn pulled(&mut self, response: &SyncResp) {
        let conversation = ConversationId::parse(&response.conversation_id).unwrap();
        let mut ledger = self.client.ledger.lock();
        self.session.unproved.remove(&conversation);
        let known = ledger.known.entry(conversation.clone()).or_default();
        known.skip_to(response.first_available_seq - 1);
        let want = self.wants.remove(&conversation).filter(|want| want.asked.is_some());
        let (from, again) = want.map_or((0, false), |want| (want.from, want.again));
        if known.upto() + 1 < from {
            // It has started over since it asked.
            drop(ledger);
            self.ended_at(&conversation, from, response);
            return self.want(&conversation, Duration::ZERO);
        }
        if known.epoch != response.epoch {
            // Proved is what came before.
            known.have.retain(|seq, _| *seq < from);
        }
        known.epoch = response.epoch;
        let text = format!("pulled {}, top {}", response.messages.len(), response.top_seq);
        self.session.note(Some(&conversation), &text);
        for push in &response.messages {
            self.session.take(&mut ledger, push, Way::Pulled);
        }
        let upto = ledger.known.get(&conversation).map_or(0, Known::upto);
        drop(ledger);
        if again || response.has_more {
            self.want(&conversation, Duration::ZERO);
        }
        if response.has_more {
            return;
        }
        if upto < response.top_seq {
            let text = format!("pulled to the end, {}, and has {upto}", response.top_seq);
            self.session.violation(Some(&conversation), &text);
        }
        if upto > response.top_seq {
            // It was told so; whether that is still there is to be proved.
            self.want(&conversation, Duration::ZERO);
        }
        self.ended_at(&conversation, from, response);
    }

    /// A pull has come to the end: what comes live is behind it.
    fn ended_at(&mut self, conversation: &ConversationId, from: i64, response: &SyncResp) {
        if response.has_more {
            return;
        }
        if response.top_seq == 0 {
            self.session.disown_behind(conversation, 0);
        }
        // A pull that nobody asked for moves only what it continues.
        let continues = self.session.reached.get(conversation).is_none_or(|before| {
            let same = before.seq == 0 || before.epoch == response.epoch;
            same && from <= before.seq + 1 && response.top_seq > before.seq
        });
        let unsure = self.session.unsure.remove(conversation);
        let told = self.session.pulling.remove(conversation);
        if unsure && !told && !continues {
            return self.session.go_on_after(conversation, response.epoch, response.top_seq);
        }
        if told {
            self.session.handed_up_to(conversation, response.top_seq);
        }
        if told || continues {
            self.session.go_on_behind(conversation, response.epoch, response.top_seq);
        }
    }

    fn acked(&mut self, ack: &Ack) {
        let Ok(conversation) = ConversationId::parse(&ack.conversation_id) else { return };
        let status = ack.status();
        if ack.client_msg_id.is_empty() {
            return;
        }
        let mut unacked = self.client.unacked.lock();
        if status == AckStatus::Failed {
            let error = ack.error.clone().unwrap_or_default();
            self.session.note(Some(&conversation), &format!("{} {:?}", ack.client_msg_id, error.code()));
            match error.code() {
                ErrorCode::RetryLater => {
                    for unacked in unacked.iter_mut().filter(|unacked| unacked.id == ack.client_msg_id) {
                        unacked.next = Instant::now() + ms(200..1_200);
                    }
                }
                ErrorCode::NotFound => unacked.retain(|unacked| unacked.id != ack.client_msg_id),
                code => self.session.violation(Some(&conversation), &format!("a send failed: {code:?}")),
            }
            return;
        }
        unacked.retain(|unacked| unacked.id != ack.client_msg_id);
        drop(unacked);
        let (epoch, seq) = (ack.epoch, ack.seq);
        let text = format!("{} is {seq} e{}", ack.client_msg_id, epoch % 100_000_000);
        self.session.note(Some(&conversation), &text);
        self.record(&conversation, ack);
        self.session.acknowledged(&conversation, epoch, seq);
        let mut ledger = self.client.ledger.lock();
        let new = !conversation.is_group() && self.session.complete;
        if new {
            ledger.known.entry(conversation.clone()).or_insert_with(|| Known::behind(0, epoch));
        }
        match ledger.known.get(&conversation).map(|known| known.epoch) {
            Some(known) if known == epoch => {
                ledger.add(&conversation, epoch, seq, &ack.server_msg_id);
            }
            _ => {
                drop(ledger);
                self.want(&conversation, Duration::ZERO);
            }
        }
    }

    fn record(&self, conversation: &ConversationId, ack: &Ack) {
        let world = &self.client.world;
        let key = (conversation.clone(), self.client.user, ack.client_msg_id.clone());
        let now = Acked { seq: ack.seq, id: ack.server_msg_id.clone() };
        let held =
            world.model.all(conversation).iter().any(|m| m.seq == now.seq && m.server_msg_id == now.id);
        if !held {
            if !world.plan.damage {
                self.session
                    .violation(Some(conversation), &format!("{now:?} is acknowledged and not in the log"));
            }
            return;
        }
        let before = world.acked.lock().insert(key, now.clone());
        if let Some(before) = before.filter(|before| *before != now) {
            let text = format!("{} is {now:?} after it was {before:?}", ack.client_msg_id);
            self.session.violation(Some(conversation), &text);
        }
    }

    fn failed(&mut self, error: &Error) {
        let Ok(conversation) = ConversationId::parse(&error.conversation_id) else {
            return self.refused(error, None);
        };
        self.session.note(Some(&conversation), &format!("hears: {:?} {}", error.code(), error.message));
        self.refused(error, Some(&conversation));
        match error.code() {
            ErrorCode::ResyncRequired => {
                let current = error.current.clone().unwrap_or_default();
                let answers = if error.ref_request_id.is_empty() { "unasked" } else { "asked" };
                let text =
                    format!("{answers}, it stands at {} e{}", current.seq, current.epoch % 100_000_000);
                self.session.note(Some(&conversation), &text);
                self.session.unproved.remove(&conversation);
                if !error.ref_request_id.is_empty() {
                    self.session.disown_behind(&conversation, current.seq);
                    self.session.disown(&conversation, current.epoch.saturating_sub(1));
                    self.session.go_on_after(&conversation, current.epoch, current.seq);
                } else {
                    let of =
                        self.client.ledger.lock().known.get(&conversation).map_or(0, |known| known.epoch);
                    let reached = self.session.reached.get(&conversation).map_or(of, |reached| reached.epoch);
                    self.session.disown(&conversation, reached);
                    self.session.go_on_behind(&conversation, current.epoch, current.seq);
                    self.session.handed_up_to(&conversation, current.seq);
                }
                self.client.ledger.lock().known.insert(conversation.clone(), Known::behind(0, current.epoch));
                self.want(&conversation, Duration::ZERO);
            }
            ErrorCode::NotFound => {
                self.client.ledger.lock().known.remove(&conversation);
                self.session.forget(&conversation);
                self.wants.remove(&conversation);
            }
            ErrorCode::RetryLater => {
                // Not resumed: it is as if it had not been asked for.
                self.session.unproved.insert(conversation.clone());
                if error.ref_request_id.is_empty()
                    && let Some(told) = self.session.told.get(&conversation).copied()
                {
                    self.session.go_on_behind(&conversation, told.epoch, told.seq);
                    self.session.handed_up_to(&conversation, told.seq);
                }
                self.want(&conversation, ms(100..500));
            }
            code => self.session.violation(Some(&conversation), &format!("{code:?} {}", error.message)),
        }
    }

    /// A pull is not answered with a page.
    fn refused(&mut self, error: &Error, conversation: Option<&ConversationId>) {
        if error.ref_request_id == "list" {
            self.unlisted = Some(Instant::now() + ms(100..500));
            return;
        }
        let asked = Some(error.ref_request_id.clone()).filter(|id| !id.is_empty());
        for (of, want) in self.wants.iter_mut().filter(|(_, want)| asked.is_some() && want.asked == asked) {
            want.asked = None;
            want.at = Instant::now() + ms(100..500);
            if conversation.is_none() {
                self.session.note(Some(of), &format!("hears: {:?} {}", error.code(), error.message));
            }
        }
    }
}
