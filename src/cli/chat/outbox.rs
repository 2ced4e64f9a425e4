//! One's own messages, from the Enter key to the blue ticks.
//!
//! Owns what is not stored yet, in order, and how far the rest got. Promises
//! that a message stays pending, under the same client message id, until the
//! gateway stored or refused it, and that its tick only ever rises.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How far one's own message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tick {
    Failed,
    Sending,
    Stored,
    Delivered,
    Read,
}

/// A message whose tick rose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) tick: Tick,
    pub(super) seq: i64,
}

#[derive(Debug)]
struct Pending {
    id: String,
    text: String,
    /// On this connection and without an answer since.
    sent_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Failed,
    Sending,
    Stored(i64),
}

/// One's own messages.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: VecDeque<Pending>,
    /// Stored and not yet read: seq and the tick last told.
    stored: BTreeMap<i64, Tick>,
    delivered: i64,
    read: i64,
    hold_until: Option<Instant>,
    last: Option<(String, Last)>,
}

impl Outbox {
    /// Takes a new message; `due` will name it.
    pub(super) fn push(&mut self, id: String, text: String) {
        self.last = Some((id.clone(), Last::Sending));
        self.pending.push_back(Pending { id, text, sent_at: None });
    }

    /// Id and text of what must be sent now, in order: what is new, what the
    /// gateway put off, and what it left unanswered for too long.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(String, String)> {
        if self.hold_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.hold_until = None;
        let mut due = Vec::new();
        for message in &mut self.pending {
            if message.sent_at.is_none_or(|at| now >= at + ANSWER_WAIT) {
                message.sent_at = Some(now);
                due.push((message.id.clone(), message.text.clone()));
            }
        }
        due
    }

    /// When `due` has something next; `None` when nothing waits.
    pub(super) fn wake(&self) -> Option<Instant> {
        let answer = self.pending.iter().filter_map(|message| Some(message.sent_at? + ANSWER_WAIT)).min();
        match self.hold_until {
            Some(until) if !self.pending.is_empty() => Some(until),
            _ => answer,
        }
    }

    /// The gateway stored `id` at `seq`.
    pub(super) fn stored(&mut self, id: &str, seq: i64) -> Vec<Change> {
        if !self.remove(id) {
            return Vec::new();
        }
        self.settle(id, Last::Stored(seq));
        self.stored.insert(seq, Tick::Sending);
        while self.stored.len() > MOST_UNREAD {
            self.stored.pop_first();
        }
        let mut changes = vec![Change { tick: Tick::Stored, seq }];
        if let Some(tick) = self.stored.get_mut(&seq) {
            *tick = Tick::Stored;
        }
        changes.extend(self.changes());
        changes
    }

    /// The gateway refused `id` for good. False when it was not pending.
    pub(super) fn failed(&mut self, id: &str) -> bool {
        self.settle(id, Last::Failed);
        self.remove(id)
    }

    /// The gateway put `id` off until `at`, and with it what follows.
    pub(super) fn retry_later(&mut self, id: &str, at: Instant) {
        if !self.owns(id) {
            return;
        }
        for message in self.pending.iter_mut().skip_while(|message| message.id != id) {
            message.sent_at = None;
        }
        self.hold_until = Some(self.hold_until.map_or(at, |until| until.max(at)));
    }

    /// The peer holds everything up to `seq`.
    pub(super) fn delivered(&mut self, seq: i64) -> Vec<Change> {
        self.delivered = self.delivered.max(seq);
        self.changes()
    }

    /// The peer read everything up to `seq`.
    pub(super) fn read(&mut self, seq: i64) -> Vec<Change> {
        self.read = self.read.max(seq);
        self.changes()
    }

    /// The connection is gone: everything pending is due on the next one.
    pub(super) fn disconnected(&mut self) {
        self.hold_until = None;
        for message in &mut self.pending {
            message.sent_at = None;
        }
    }

    /// How many messages are not stored yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether `id` is a message of this device that is not stored yet.
    pub(super) fn owns(&self, id: &str) -> bool {
        self.pending.iter().any(|message| message.id == id)
    }

    /// The tick of the last message.
    pub(super) fn tick(&self) -> Option<Tick> {
        self.last.as_ref().map(|(_, last)| match last {
            Last::Failed => Tick::Failed,
            Last::Sending => Tick::Sending,
            Last::Stored(seq) => self.tick_of(*seq),
        })
    }

    fn tick_of(&self, seq: i64) -> Tick {
        if seq <= self.read {
            Tick::Read
        } else if seq <= self.delivered {
            Tick::Delivered
        } else {
            Tick::Stored
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&seq, &told) in &self.stored {
            let tick = self.tick_of(seq);
            if tick > told {
                changes.push(Change { tick, seq });
            }
        }
        for change in &changes {
            self.stored.insert(change.seq, change.tick);
        }
        self.stored.retain(|_, tick| *tick < Tick::Read);
        changes
    }

    fn settle(&mut self, id: &str, state: Last) {
        if let Some((last_id, last)) = &mut self.last
            && last_id == id
        {
            *last = state;
        }
    }

    fn remove(&mut self, id: &str) -> bool {
        let before = self.pending.len();
        self.pending.retain(|message| message.id != id);
        self.pending.len() < before
    }
}

/// After this long without an answer a message is sent again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const MOST_UNREAD: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(due: &[(String, String)]) -> Vec<&str> {
        due.iter().map(|(id, _)| id.as_str()).collect()
    }

    fn outbox(messages: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        for id in messages {
            outbox.push((*id).to_owned(), format!("text of {id}"));
        }
        outbox
    }

    #[test]
    fn a_message_rises_from_sending_to_read() {
        let mut outbox = outbox(&["a"]);
        assert_eq!(outbox.tick(), Some(Tick::Sending));
        assert_eq!(outbox.stored("a", 7), [Change { tick: Tick::Stored, seq: 7 }]);
        assert_eq!((outbox.tick(), outbox.pending()), (Some(Tick::Stored), 0));
        assert_eq!(outbox.delivered(6), []);
        assert_eq!(outbox.delivered(8), [Change { tick: Tick::Delivered, seq: 7 }]);
        assert_eq!(outbox.delivered(7), []);
        assert_eq!(outbox.read(7), [Change { tick: Tick::Read, seq: 7 }]);
        assert_eq!((outbox.read(9), outbox.tick()), (vec![], Some(Tick::Read)));
    }

    #[test]
    fn ticks_that_overtake_the_store_ack_are_not_lost() {
        let mut outbox = outbox(&["a"]);
        assert_eq!(outbox.delivered(3), []);
        let both = [Change { tick: Tick::Stored, seq: 3 }, Change { tick: Tick::Delivered, seq: 3 }];
        assert_eq!(outbox.stored("a", 3), both);
        assert_eq!(outbox.stored("a", 3), [], "a repeated ack changes nothing");
    }

    #[test]
    fn a_message_is_sent_once_and_again_after_silence_or_a_lost_connection() {
        let now = Instant::now();
        let mut outbox = outbox(&["a", "b"]);
        assert_eq!(ids(&outbox.due(now)), ["a", "b"]);
        assert_eq!(ids(&outbox.due(now)), [""; 0]);
        assert_eq!(outbox.wake(), Some(now + ANSWER_WAIT));
        assert_eq!(ids(&outbox.due(now + ANSWER_WAIT)), ["a", "b"]);
        outbox.stored("a", 1);
        outbox.disconnected();
        assert_eq!(ids(&outbox.due(now + ANSWER_WAIT)), ["b"]);
    }

    #[test]
    fn retry_later_puts_off_what_follows_and_keeps_the_order() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut outbox = outbox(&["a", "b", "c"]);
        outbox.due(now);
        outbox.stored("a", 1);
        outbox.retry_later("b", later);
        outbox.push("d".to_owned(), String::new());
        assert_eq!(ids(&outbox.due(now)), [""; 0]);
        assert_eq!(outbox.wake(), Some(later));
        assert_eq!(ids(&outbox.due(later)), ["b", "c", "d"]);
        outbox.retry_later("unknown", later + Duration::from_secs(9));
        assert_eq!(outbox.wake(), Some(later + ANSWER_WAIT));
    }

    #[test]
    fn a_refused_message_fails_alone() {
        let mut outbox = outbox(&["a", "b"]);
        assert!(outbox.failed("a") && !outbox.failed("a"));
        assert_eq!((outbox.tick(), outbox.pending()), (Some(Tick::Sending), 1));
        assert!(outbox.failed("b"));
        assert_eq!((outbox.tick(), outbox.pending()), (Some(Tick::Failed), 0));
    }
}
