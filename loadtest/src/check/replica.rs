//! What one client has of one conversation: how far without a hole, what lies
//! beyond, and what it has to ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::history::Position;

/// How long a hole may stay open before it is asked for.
const HOLE: Duration = Duration::from_millis(500);
/// How long an answer to a pull may take.
const ANSWER: Duration = Duration::from_secs(3);

/// A client's copy of a conversation.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) conversation: Arc<str>,
    pub(super) epoch: u64,
    /// All up to here is there.
    pub(super) floor: i64,
    /// Names the message at the floor.
    pub(super) floor_id: Arc<str>,
    /// There, with a hole before it.
    beyond: BTreeMap<i64, Arc<str>>,
    hole_since: Option<Instant>,
    pub(super) pull: Pull,
    /// The last request from before it began anew.
    pub(super) anew_since: u64,
    /// Told the gateway that it has this much.
    pub(super) confirmed: i64,
}

/// Where a pull stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    Idle,
    Due(Instant),
    Asked { request: u64, at: Instant },
}

impl Replica {
    pub(super) fn new(conversation: Arc<str>) -> Self {
        Self {
            conversation,
            epoch: 0,
            floor: 0,
            floor_id: Arc::from(""),
            beyond: BTreeMap::new(),
            hole_since: None,
            pull: Pull::Idle,
            anew_since: 0,
            confirmed: 0,
        }
    }

    /// What there is without a hole, and its proof.
    pub(super) fn position(&self) -> Position {
        Position {
            conversation: Arc::clone(&self.conversation),
            epoch: self.epoch,
            seq: self.floor,
            server_msg_id: Arc::clone(&self.floor_id),
        }
    }

    /// A message is there.
    pub(super) fn insert(&mut self, seq: i64, id: &Arc<str>, epoch: u64, now: Instant) {
        self.epoch = self.epoch.max(epoch);
        if seq <= self.floor {
            return;
        }
        self.beyond.insert(seq, Arc::clone(id));
        self.advance(now);
    }

    /// All up to `seq` will never come: trimmed, or from before joining.
    pub(super) fn skip_to(&mut self, seq: i64, now: Instant) {
        if seq > self.floor {
            (self.floor, self.floor_id) = (seq, Arc::from(""));
            self.beyond = self.beyond.split_off(&(seq + 1));
            self.advance(now);
        }
    }

    /// Forgets everything: another history is there. `asked` = the last request
    /// so far, whose answer may still name the one before.
    pub(super) fn forget(&mut self, asked: u64) {
        let conversation = Arc::clone(&self.conversation);
        *self = Self { anew_since: asked, ..Self::new(conversation) };
    }

    /// The connection is gone, and with it whatever was asked on it.
    pub(super) fn disconnected(&mut self) {
        self.pull = Pull::Idle;
        self.hole_since = None;
        self.confirmed = 0;
    }

    /// Asks at `at`, or sooner if that is planned already.
    pub(super) fn pull_at(&mut self, at: Instant) {
        match self.pull {
            Pull::Due(planned) if planned <= at => {}
            Pull::Idle | Pull::Due(_) => self.pull = Pull::Due(at),
            // What is on its way may not hold the newest.
            Pull::Asked { .. } => self.hole_since = self.hole_since.or(Some(at)),
        }
    }

    /// Whether nothing is missing, or asked for, as far as it knows.
    pub(super) fn is_at_rest(&self) -> bool {
        self.pull == Pull::Idle && self.beyond.is_empty()
    }

    /// Whether it is time to ask.
    pub(super) fn wants(&mut self, now: Instant) -> bool {
        match self.pull {
            Pull::Due(at) => at <= now,
            Pull::Asked { at, .. } => now >= at + ANSWER,
            Pull::Idle => self.hole_since.is_some_and(|since| now >= since + HOLE),
        }
    }

    /// Asked; a further hole starts anew.
    pub(super) fn asked(&mut self, request: u64, now: Instant) {
        self.pull = Pull::Asked { request, at: now };
        self.hole_since = None;
    }

    /// Whether `request` is what it waits for.
    pub(super) fn asked_for(&self, request: u64) -> bool {
        matches!(self.pull, Pull::Asked { request: asked, .. } if asked == request)
    }

    /// The answer to `request` came; `more` = there is more to ask for, at once.
    pub(super) fn answered(&mut self, request: u64, more: bool, now: Instant) {
        if self.asked_for(request) {
            self.pull = if more { Pull::Due(now) } else { Pull::Idle };
        }
        if !self.beyond.is_empty() {
            self.hole_since = self.hole_since.or(Some(now));
        }
    }

    fn advance(&mut self, now: Instant) {
        while let Some(entry) = self.beyond.first_entry()
            && *entry.key() == self.floor + 1
        {
            (self.floor, self.floor_id) = entry.remove_entry();
        }
        self.hole_since = if self.beyond.is_empty() { None } else { self.hole_since.or(Some(now)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_asked_for_when_they_stay() {
        let now = Instant::now();
        let mut replica = Replica::new(Arc::from("p2p:1:2"));
        let id = |seq: i64| Arc::from(format!("s{seq}"));
        [1, 2, 5].into_iter().for_each(|seq| replica.insert(seq, &id(seq), 7, now));
        assert_eq!((replica.floor, &*replica.floor_id, replica.epoch), (2, "s2", 7));
        assert!(!replica.wants(now) && replica.wants(now + HOLE));
        replica.asked(1, now);
        assert!(!replica.wants(now + HOLE) && replica.wants(now + ANSWER));
        [3, 4].into_iter().for_each(|seq| replica.insert(seq, &id(seq), 7, now));
        replica.answered(1, false, now);
        assert_eq!(replica.floor, 5);
        assert!(!replica.wants(now + ANSWER));
        replica.skip_to(9, now);
        assert_eq!((replica.floor, &*replica.floor_id), (9, ""));
        replica.forget(1);
        assert_eq!(replica.floor, 0);
    }
}
