//! What the messages of one pair must have been: every one acknowledged as
//! stored arrives, in order of its seq, and with the seq it was acknowledged
//! with.

use std::collections::BTreeMap;

/// One message of a pair, from both ends.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    stored: Option<i64>,
    delivered: Option<i64>,
    refused: bool,
}

/// Judges one pair; fed with what both ends see.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: BTreeMap<u32, Fate>,
    last: Option<(i64, u32)>,
    faults: Faults,
}

/// What went wrong, and what came twice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Stored and not delivered.
    pub(crate) lost: u64,
    /// Delivered behind a later one.
    pub(crate) out_of_order: u64,
    /// Delivered with another seq than acknowledged.
    pub(crate) wrong_seq: u64,
    /// Neither stored nor refused.
    pub(crate) unanswered: u64,
    /// Delivered again: allowed, and worth knowing.
    pub(crate) duplicated: u64,
    /// Refused: allowed.
    pub(crate) refused: u64,
}

impl Faults {
    /// Whether the delivery promise was kept.
    pub(crate) const fn is_kept(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.wrong_seq == 0 && self.unanswered == 0
    }

    /// Adds those of another pair.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.wrong_seq += other.wrong_seq;
        self.unanswered += other.unanswered;
        self.duplicated += other.duplicated;
        self.refused += other.refused;
    }
}

impl Ledger {
    /// Message `number` was sent.
    pub(crate) fn sent(&mut self, number: u32) {
        self.fates.insert(number, Fate::default());
    }

    /// The sender was told that it is stored.
    pub(crate) fn stored(&mut self, number: u32, seq: i64) {
        self.fates.entry(number).or_default().stored = Some(seq);
        self.close(number);
    }

    /// The sender was told that it is not.
    pub(crate) fn refused(&mut self, number: u32) {
        self.fates.entry(number).or_default().refused = true;
        self.faults.refused += 1;
    }

    /// The receiver got it; whether for the first time.
    pub(crate) fn delivered(&mut self, number: u32, seq: i64) -> bool {
        if self.last.is_some_and(|(last, _)| seq == last) || !self.fates.contains_key(&number) {
            self.faults.duplicated += 1;
            return false;
        }
        let fate = self.fates.entry(number).or_default();
        if fate.delivered.replace(seq).is_some() {
            self.faults.duplicated += 1;
            return false;
        }
        if self.last.is_some_and(|(last, before)| seq < last || number < before) {
            self.faults.out_of_order += 1;
        } else {
            self.last = Some((seq, number));
        }
        self.close(number);
        true
    }

    /// Whether every message sent has come to its end.
    pub(crate) fn is_settled(&self) -> bool {
        self.fates.values().all(|fate| fate.refused)
    }

    /// The judgement, after which nothing more is waited for.
    pub(crate) fn judge(mut self) -> Faults {
        for fate in self.fates.values() {
            match (fate.stored, fate.refused) {
                (Some(_), _) => self.faults.lost += 1,
                (None, false) => self.faults.unanswered += 1,
                (None, true) => {}
            }
        }
        self.faults
    }

    /// Forgets a message that both ends agree on: only what is open is kept.
    fn close(&mut self, number: u32) {
        if let Some(Fate { stored: Some(stored), delivered: Some(delivered), .. }) = self.fates.get(&number) {
            self.faults.wrong_seq += u64::from(stored != delivered);
            self.fates.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sent: u32) -> Ledger {
        let mut ledger = Ledger::default();
        (0..sent).for_each(|number| ledger.sent(number));
        ledger
    }

    #[test]
    fn kept_when_all_that_is_stored_arrives_in_order() {
        let mut pair = ledger(3);
        pair.stored(0, 1);
        assert!(pair.delivered(0, 1));
        assert!(pair.delivered(1, 2), "the push may be faster than the ack");
        pair.stored(1, 2);
        pair.refused(2);
        assert!(pair.is_settled());
        let faults = pair.judge();
        assert_eq!(faults, Faults { refused: 1, ..Faults::default() });
        assert!(faults.is_kept());
    }

    #[test]
    fn every_fault_is_seen() {
        let mut pair = ledger(6);
        (0..5).for_each(|number| pair.stored(number, i64::from(number) + 1));
        assert!(pair.delivered(1, 2));
        assert!(pair.delivered(0, 1), "late");
        assert!(!pair.delivered(1, 2), "again");
        assert!(pair.delivered(3, 5), "not what was acknowledged");
        assert!(!pair.is_settled());
        let expected =
            Faults { lost: 2, out_of_order: 1, wrong_seq: 1, unanswered: 1, duplicated: 1, refused: 0 };
        assert_eq!(pair.judge(), expected);
        assert!(!expected.is_kept());
    }
}
