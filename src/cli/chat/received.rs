//! What this device holds of the conversation: every message once, and the
//! position up to which there is no hole.

use std::collections::{BTreeSet, HashSet, VecDeque};

/// What this device holds.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// No hole up to here since this device started; `None` before anything
    /// is known.
    upto: Option<i64>,
    ahead: BTreeSet<i64>,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
}

impl Received {
    /// Notes one message; false when it was seen before.
    pub(super) fn note(&mut self, server_msg_id: &str, seq: i64) -> bool {
        self.hold(seq);
        if !self.seen.insert(server_msg_id.to_owned()) {
            return false;
        }
        self.seen_order.push_back(server_msg_id.to_owned());
        if self.seen_order.len() > MOST_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Counts everything up to `seq` as held: it lies before this device's
    /// start, or is no longer kept.
    pub(super) fn skip_to(&mut self, seq: i64) {
        let upto = self.upto.unwrap_or(0).max(seq);
        self.upto = Some(upto);
        self.ahead = self.ahead.split_off(&upto.saturating_add(1));
        self.close_up();
    }

    /// Forgets positions, not messages: the conversation has another history.
    pub(super) fn restart(&mut self) {
        self.upto = None;
        self.ahead.clear();
    }

    /// The position to acknowledge as delivered.
    pub(super) fn upto(&self) -> Option<i64> {
        self.upto
    }

    fn hold(&mut self, seq: i64) {
        // The first message tells where this device started.
        let upto = *self.upto.get_or_insert(seq.saturating_sub(1));
        if seq > upto {
            self.ahead.insert(seq);
            self.close_up();
        }
    }

    fn close_up(&mut self) {
        let Some(upto) = &mut self.upto else { return };
        while self.ahead.remove(&upto.saturating_add(1)) {
            *upto += 1;
        }
    }
}

const MOST_SEEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_counts_once_and_holes_hold_the_position_back() {
        let mut received = Received::default();
        received.skip_to(4);
        assert!(received.note("m5", 5) && !received.note("m5", 5));
        assert!(received.note("m7", 7));
        assert_eq!(received.upto(), Some(5));
        assert!(received.note("m6", 6));
        assert_eq!(received.upto(), Some(7));
        assert!(received.note("m9", 9));
        received.skip_to(8);
        assert_eq!(received.upto(), Some(9));
    }

    #[test]
    fn the_first_message_tells_the_start() {
        let mut received = Received::default();
        assert_eq!(received.upto(), None);
        received.note("m57", 57);
        assert_eq!(received.upto(), Some(57));
        received.restart();
        assert!(!received.note("m57", 57), "the message itself is remembered");
    }

    #[test]
    fn memory_is_bounded() {
        let mut received = Received::default();
        for seq in 1..6000 {
            assert!(received.note(&format!("m{seq}"), seq));
        }
        assert_eq!(received.seen.len(), MOST_SEEN);
        assert_eq!(received.upto(), Some(5999));
    }
}
