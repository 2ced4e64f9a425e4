//! What a client does with what comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use tidegate::internal::Payload;
use tidegate::proto::{
    Ack, AckStatus, ConversationChange, ConversationEvent, Error, ErrorCode, Push, Ready, SyncResp,
};
use tokio::time::Instant;

use super::client::Client;
use super::recorder::{message, position};
use super::replica::Replica;
use crate::history::{Event, How};

/// Where the gateway names no time.
const RETRY: Duration = Duration::from_millis(200);

impl Client {
    /// Takes one envelope; an error ends the connection.
    pub(super) fn take(&mut self, payload: Option<Payload>) -> Result<()> {
        match payload {
            Some(Payload::Ready(ready)) => self.ready(&ready),
            Some(Payload::Ack(ack)) => self.answered(&ack),
            Some(Payload::Push(push)) => self.received(&push, How::Live),
            Some(Payload::PushBatch(batch)) => {
                let how = if batch.replay { How::Replay } else { How::Live };
                batch.messages.iter().for_each(|push| self.received(push, how));
            }
            Some(Payload::SyncResp(page)) => self.pulled(&page),
            Some(Payload::Hint(hint)) => {
                let at = Instant::now() + Duration::from_millis(hint.pull_delay_ms.into());
                self.replica(&hint.conversation_id).pull_at(at);
            }
            Some(Payload::Error(error)) => self.refused(&error),
            Some(Payload::ConversationEvent(event)) => self.changed(&event),
            Some(Payload::Kick(kick)) => bail!("kicked: {:?}", kick.reason()),
            Some(Payload::GoAway(away)) => bail!("told to go: {:?}", away.reason()),
            _ => {}
        }
        Ok(())
    }

    fn ready(&mut self, ready: &Ready) {
        if !std::mem::replace(&mut self.served, true) {
            self.shared.served.fetch_add(1, Ordering::Relaxed);
        }
        let positions = ready.conversations.iter().map(position).collect();
        self.recorder.note(Event::Ready { gateway: ready.gateway_id.clone(), positions });
        for known in &ready.conversations {
            // The others were named in the resume, and are answered.
            if !self.replicas.iter().any(|replica| *replica.conversation == *known.conversation_id) {
                self.replica(&known.conversation_id).pull_at(Instant::now());
            }
        }
    }

    fn answered(&mut self, ack: &Ack) {
        match ack.status() {
            AckStatus::Stored => {
                let Some(pending) = self.outbox.answered(&ack.client_msg_id) else { return };
                self.shared.acked.fetch_add(1, Ordering::Relaxed);
                let id: Arc<str> = Arc::from(ack.server_msg_id.as_str());
                let replica = self.replica(&ack.conversation_id);
                replica.insert(ack.seq, &id, ack.epoch, Instant::now());
                self.recorder.note(Event::Acked {
                    conversation: pending.conversation,
                    client_msg_id: pending.client_msg_id,
                    server_msg_id: id,
                    seq: ack.seq,
                    epoch: ack.epoch,
                    duplicate: ack.duplicate,
                    level: ack.level,
                });
            }
            AckStatus::Failed => {
                let error = ack.error.clone().unwrap_or_default();
                match error.code() {
                    ErrorCode::RetryLater | ErrorCode::RateLimited => {
                        self.outbox.retry(&ack.client_msg_id, Instant::now() + pause(&error));
                    }
                    code => {
                        let Some(pending) = self.outbox.answered(&ack.client_msg_id) else { return };
                        self.recorder.note(Event::Failed {
                            conversation: pending.conversation,
                            client_msg_id: pending.client_msg_id,
                            code: code.as_str_name().to_owned(),
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn received(&mut self, push: &Push, how: How) {
        let replica = self.replica(&push.conversation_id);
        let message = message(&replica.conversation, push);
        replica.insert(push.seq, &message.server_msg_id, push.epoch, Instant::now());
        self.recorder.note(Event::Received { message, how });
    }

    fn pulled(&mut self, page: &SyncResp) {
        let now = Instant::now();
        let replica = self.replica(&page.conversation_id);
        let (before, conversation) = (replica.floor, Arc::clone(&replica.conversation));
        if page.first_available_seq > before + 1 {
            replica.skip_to(page.first_available_seq - 1, now);
            let first_available = page.first_available_seq;
            self.recorder.note(Event::Trimmed { conversation, first_available });
        }
        page.messages.iter().for_each(|push| self.received(push, How::Pull));
        let replica = self.replica(&page.conversation_id);
        if let Ok(request) = page.request_id.parse() {
            replica.answered(request, page.has_more, now);
        }
    }

    fn refused(&mut self, error: &Error) {
        let again = Instant::now() + pause(error);
        let request = error.ref_request_id.parse();
        match error.code() {
            ErrorCode::ResyncRequired => {
                let requests = self.requests;
                let replica = self.replica(&error.conversation_id);
                if request.is_ok_and(|request| request <= replica.anew_since) {
                    // Asked before it began anew.
                    return;
                }
                let had = replica.position();
                replica.forget(requests);
                replica.pull_at(Instant::now());
                let conversation = Arc::clone(&replica.conversation);
                let current = error.current.as_ref().map(position);
                let why = match error.ref_request_id.as_str() {
                    "" => format!("{}, unasked", error.message),
                    request => format!("{}, as the answer to pull {request}", error.message),
                };
                self.recorder.note(Event::Resync { conversation, had, current, why });
            }
            ErrorCode::RetryLater | ErrorCode::RateLimited if !error.conversation_id.is_empty() => {
                let replica = self.replica(&error.conversation_id);
                if let Ok(request) = request {
                    replica.answered(request, false, Instant::now());
                }
                replica.pull_at(again);
            }
            code => {
                let Ok(request) = request else { return };
                for replica in self.replicas.iter_mut().filter(|replica| replica.asked_for(request)) {
                    replica.answered(request, false, Instant::now());
                    if matches!(code, ErrorCode::RetryLater | ErrorCode::RateLimited) {
                        replica.pull_at(again);
                    }
                }
            }
        }
    }

    fn changed(&mut self, event: &ConversationEvent) {
        if event.user_id != self.role.user {
            return;
        }
        let replica = self.replica(&event.conversation_id);
        let conversation = Arc::clone(&replica.conversation);
        match event.change() {
            ConversationChange::Joined => {
                replica.forget(0);
                replica.skip_to(event.since_seq, Instant::now());
                self.recorder.note(Event::Joined { conversation, since_seq: event.since_seq });
            }
            ConversationChange::Removed | ConversationChange::Deleted => {
                self.replicas.retain(|replica| replica.conversation != conversation);
                self.recorder.note(Event::Removed { conversation });
            }
            _ => {}
        }
    }

    fn replica(&mut self, conversation: &str) -> &mut Replica {
        let place = self.replicas.iter().position(|replica| *replica.conversation == *conversation);
        let place = place.unwrap_or_else(|| {
            self.replicas.push(Replica::new(Arc::from(conversation)));
            self.replicas.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or made just now")]
        &mut self.replicas[place]
    }
}

fn pause(error: &Error) -> Duration {
    match error.retry_after_ms {
        0 => RETRY,
        ms => Duration::from_millis(ms.into()),
    }
}
