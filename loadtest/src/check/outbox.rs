//! What one client has to send, until each is answered for good.
//!
//! Nothing overtakes: after a RETRY_LATER, and on a new connection, all that
//! is unanswered goes out again in the order it was first sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate::internal::Payload;
use tokio::time::Instant;

use super::shared::Shared;
use crate::frame::text;

/// How long a send may be without an answer on a connection that lives.
const ANSWER: Duration = Duration::from_secs(8);

/// A message without a final answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) conversation: Arc<str>,
    pub(super) client_msg_id: Arc<str>,
    pub(super) text: String,
    /// Since when on this connection; `None` = not on it.
    sent: Option<Instant>,
}

/// One client's unanswered messages, oldest first.
#[derive(Debug)]
pub(super) struct Outbox {
    pending: VecDeque<Pending>,
    /// Conversations that wait, and until when.
    held: Vec<(Arc<str>, Instant)>,
    shared: Arc<Shared>,
}

impl Outbox {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { pending: VecDeque::new(), held: Vec::new(), shared }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// A new message at the end.
    pub(super) fn push(&mut self, conversation: Arc<str>, client_msg_id: Arc<str>, text: String) {
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        self.pending.push_back(Pending { conversation, client_msg_id, text, sent: None });
    }

    /// What is to go out now, in order.
    pub(super) fn take(&mut self, now: Instant, mut out: impl FnMut(Payload)) {
        let pending = &self.pending;
        let flying = |conversation: &Arc<str>| {
            pending.iter().any(|one| one.sent.is_some() && one.conversation == *conversation)
        };
        // A conversation goes on when its time has come and every answer that
        // is still under way is there.
        self.held.retain(|(conversation, until)| *until > now || flying(conversation));
        for one in &mut self.pending {
            if one.sent.is_none() && !self.held.iter().any(|(held, _)| *held == one.conversation) {
                one.sent = Some(now);
                self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
                out(one.request());
            }
        }
    }

    /// Answered for good.
    pub(super) fn answered(&mut self, client_msg_id: &str) -> Option<Pending> {
        let place = self.place(client_msg_id)?;
        let one = self.pending.remove(place)?;
        self.shared.unanswered.fetch_sub(1, Ordering::Relaxed);
        if one.sent.is_some() {
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        Some(one)
    }

    /// Answered RETRY_LATER: its conversation waits.
    pub(super) fn retry(&mut self, client_msg_id: &str, until: Instant) {
        let Some(one) = self.place(client_msg_id).and_then(|place| self.pending.get_mut(place)) else {
            return;
        };
        if one.sent.take().is_some() {
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        match self.held.iter_mut().find(|(held, _)| *held == one.conversation) {
            Some((_, held)) => *held = until.max(*held),
            None => self.held.push((Arc::clone(&one.conversation), until)),
        }
    }

    /// The connection is gone: nothing is on its way any more.
    pub(super) fn disconnected(&mut self) {
        self.held.clear();
        for one in &mut self.pending {
            if one.sent.take().is_some() {
                self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether an answer is missing for too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.pending.iter().any(|one| one.sent.is_some_and(|at| now >= at + ANSWER))
    }

    fn place(&self, client_msg_id: &str) -> Option<usize> {
        self.pending.iter().position(|one| &*one.client_msg_id == client_msg_id)
    }
}

impl Pending {
    fn request(&self) -> Payload {
        text(&self.conversation, &self.client_msg_id, &self.text)
    }
}
