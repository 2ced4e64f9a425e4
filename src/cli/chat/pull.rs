//! Pulling what was not pushed: the last messages when the chat begins, and
//! what came while this device was away.

use std::time::Duration;

use tokio::time::Instant;

use super::talk::Talk;
use crate::cli::identity::new_client_msg_id;
use crate::wire::pb::envelope::Payload;
use crate::wire::pb::{Direction, Position, Push, SyncReq, SyncResp};

/// A range being pulled, or about to be.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) request_id: String,
    /// Pushes that came meanwhile; shown when the pull is over.
    pub(super) waiting: Vec<Push>,
    /// The request was sent.
    pub(super) begun: bool,
    /// When to send the request, or to give up on its answer.
    pub(super) due: Instant,
    direction: Direction,
}

impl Pull {
    /// Whether it is of what lies before the chat.
    pub(super) fn is_history(&self) -> bool {
        self.direction == Direction::Backward
    }
}

impl Talk {
    /// Pulls what lies between what this device holds and the top.
    pub(super) fn catch_up(&mut self, position: &Position, now: Instant) {
        let replaced = self.epoch != 0 && position.epoch != self.epoch;
        self.epoch = position.epoch;
        match self.received.upto() {
            Some(upto) if !replaced && upto <= position.seq => {
                if upto < position.seq {
                    self.begin(Direction::Forward, now);
                }
            }
            None if position.seq == 0 => self.received.skip_to(0),
            known => {
                if known.is_some() {
                    self.notice("the conversation has another history than before".to_owned());
                }
                self.start_at(position.seq, now);
            }
        }
    }

    /// Pulls what this device does not hold, wherever the top may be.
    pub(super) fn look(&mut self, now: Instant) {
        let known = self.received.upto().is_some();
        self.begin(if known { Direction::Forward } else { Direction::Backward }, now);
    }

    /// The gateway does not know this device's position: starts over at the
    /// top.
    pub(super) fn resync(&mut self, current: Option<&Position>, now: Instant) {
        self.end_pull();
        if let Some(position) = current {
            self.epoch = position.epoch;
            self.start_at(position.seq, now);
        }
    }

    /// Pulls forward at `due`.
    pub(super) fn pull_later(&mut self, due: Instant) {
        let (direction, waiting) = match self.pull.take() {
            Some(pull) => (pull.direction, pull.waiting),
            None => (Direction::Forward, Vec::new()),
        };
        self.pull = Some(Pull { request_id: new_client_msg_id(), waiting, begun: false, due, direction });
    }

    /// Sends the request, or gives up on the answer.
    pub(super) fn tick_pull(&mut self, now: Instant) {
        match &self.pull {
            Some(pull) if now < pull.due => {}
            Some(pull) if !pull.begun => self.begin(pull.direction, now),
            Some(_) => self.end_pull(),
            None => {}
        }
    }

    /// Takes one page.
    pub(super) fn on_page(&mut self, mut page: SyncResp, now: Instant) {
        let Some(pull) = self.pull.as_ref().filter(|pull| pull.request_id == page.request_id) else { return };
        let forward = !pull.is_history();
        page.messages.retain(|push| push.conversation_id == self.conversation);
        page.messages.sort_by_key(|push| push.seq);
        if forward {
            let lost_upto = page.first_available_seq.saturating_sub(1);
            if self.received.upto().is_some_and(|upto| upto < lost_upto) {
                self.notice(format!("messages up to {lost_upto} are no longer kept"));
                self.received.skip_to(lost_upto);
            }
        } else if let Some(first) = page.messages.first().filter(|first| first.seq > self.read_before + 1) {
            self.notice(format!(
                "{} earlier unread messages are not shown",
                first.seq - self.read_before - 1
            ));
        }
        for push in &page.messages {
            self.show(push);
        }
        if forward && page.has_more && !page.messages.is_empty() {
            self.begin(Direction::Forward, now);
        } else {
            self.end_pull();
        }
    }

    /// Shows what waited for the pull.
    pub(super) fn end_pull(&mut self) {
        if let Some(mut pull) = self.pull.take() {
            pull.waiting.sort_by_key(|push| push.seq);
            for push in &pull.waiting {
                self.show(push);
            }
        }
    }

    fn start_at(&mut self, top: i64, now: Instant) {
        self.received.restart();
        self.received.skip_to(top);
        self.begin(Direction::Backward, now);
    }

    fn begin(&mut self, direction: Direction, now: Instant) {
        let waiting = self.pull.take().map(|pull| pull.waiting).unwrap_or_default();
        let request_id = new_client_msg_id();
        let (from_seq, limit) = match direction {
            Direction::Forward => (self.received.upto().unwrap_or(0).saturating_add(1), PAGE),
            Direction::Backward => (0, LAST),
        };
        self.ask(Payload::Sync(SyncReq {
            request_id: request_id.clone(),
            conversation_id: self.conversation.clone(),
            from_seq,
            limit,
            direction: direction.into(),
            epoch: self.epoch,
            server_msg_id: String::new(),
        }));
        self.pull = Some(Pull { request_id, waiting, begun: true, due: now + ANSWER_WAIT, direction });
    }
}

const PAGE: u32 = 100;
const LAST: u32 = 20;
const ANSWER_WAIT: Duration = Duration::from_secs(5);
