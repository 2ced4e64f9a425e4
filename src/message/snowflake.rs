//! 64-bit message ids that grow with time: 41 bits of milliseconds, 10 of
//! node, 12 of count.

/// 2025-01-01T00:00:00Z; 41 bits of milliseconds last until 2094.
const ORIGIN_MS: i64 = 1_735_689_600_000;
/// The highest node number.
pub(crate) const MAX_NODE: u16 = 1023;
const COUNT_BITS: u32 = 12;
const NODE_BITS: u32 = 10;

/// Numbers the messages of one node. Unique as long as no other source has
/// the node, also while the clock goes backwards: time then stands still.
#[derive(Debug)]
pub(crate) struct IdSource {
    node: u16,
    last_ms: i64,
    count: i64,
}

impl IdSource {
    /// For `node`, 0 to [`MAX_NODE`].
    #[must_use]
    pub(crate) const fn new(node: u16) -> Self {
        Self { node, last_ms: 0, count: 0 }
    }

    /// Goes on behind what another process numbered up to this millisecond.
    pub(crate) const fn resume_after(&mut self, last_ms: i64) {
        self.last_ms = last_ms + 1;
        self.count = 0;
    }

    /// The millisecond of the last id.
    #[must_use]
    pub(crate) const fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// The node.
    #[must_use]
    pub(crate) const fn node(&self) -> u16 {
        self.node
    }

    /// Moves to another node, when the old one's lease is gone.
    pub(crate) const fn set_node(&mut self, node: u16) {
        self.node = node;
    }

    /// The next id at this unix time in ms.
    pub(crate) fn next(&mut self, now_ms: i64) -> i64 {
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            self.count = 0;
        } else {
            self.count += 1;
            if self.count >> COUNT_BITS != 0 {
                // More than 4096 in a millisecond: borrow from the next one.
                self.last_ms += 1;
                self.count = 0;
            }
        }
        let since = self.last_ms.saturating_sub(ORIGIN_MS).max(0);
        since << (NODE_BITS + COUNT_BITS) | i64::from(self.node & MAX_NODE) << COUNT_BITS | self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn always_growing_whatever_the_clock_does(steps in proptest::collection::vec(-50_i64..50, 1..300)) {
            let mut ids = IdSource::new(7);
            let (mut now, mut last) = (ORIGIN_MS + 1_000_000, 0);
            for step in steps {
                now += step;
                for _ in 0..100 {
                    let id = ids.next(now);
                    prop_assert!(id > last);
                    last = id;
                }
            }
        }
    }

    #[test]
    fn nodes_never_meet() {
        let (mut a, mut b) = (IdSource::new(1), IdSource::new(2));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(a.next(ORIGIN_MS + 1)));
            assert!(seen.insert(b.next(ORIGIN_MS + 1)));
        }
    }
}
