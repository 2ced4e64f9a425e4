//! The counters that make a lost bus message visible. Pure.

use std::collections::HashMap;

use crate::types::GatewayId;

/// When a pause in the traffic is long enough to repeat the last number.
pub(super) const REPEAT_AFTER_MS: u64 = 1_000;
/// A source or destination silent for this long is forgotten.
const FORGET_AFTER_MS: u64 = 3_600_000;

#[derive(Debug)]
struct Sent {
    counter: u64,
    at_ms: u64,
    repeated: bool,
}

/// Numbers what leaves, per destination.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    destinations: HashMap<GatewayId, Sent>,
}

impl Outbound {
    /// The number of the next message to `gateway`.
    pub(crate) fn next(&mut self, gateway: &GatewayId, now_ms: u64) -> u64 {
        if !self.destinations.contains_key(gateway) {
            self.destinations.insert(gateway.clone(), Sent { counter: 0, at_ms: now_ms, repeated: false });
        }
        let Some(sent) = self.destinations.get_mut(gateway) else { return 1 };
        sent.counter += 1;
        sent.at_ms = now_ms;
        sent.repeated = false;
        sent.counter
    }

    /// Destinations whose last number, sent so long ago, is not repeated yet.
    pub(crate) fn repeats(&mut self, now_ms: u64, after_ms: u64) -> Vec<(GatewayId, u64)> {
        self.destinations.retain(|_, sent| now_ms.saturating_sub(sent.at_ms) < FORGET_AFTER_MS);
        let mut due = Vec::new();
        for (gateway, sent) in &mut self.destinations {
            if !sent.repeated && now_ms.saturating_sub(sent.at_ms) >= after_ms {
                sent.repeated = true;
                due.push((gateway.clone(), sent.counter));
            }
        }
        due
    }
}

/// What a number says about the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// Nothing is missing.
    Whole,
    /// The first message seen of this source and epoch.
    NewSource,
    /// At least one message was lost.
    Hole,
}

/// Follows what arrives, per source.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    sources: HashMap<(GatewayId, u64), (u64, u64)>,
}

impl Inbound {
    /// Takes note of a message's number; one without items repeats the last.
    pub(crate) fn observe(
        &mut self,
        source: &GatewayId,
        epoch: u64,
        counter: u64,
        has_items: bool,
        now_ms: u64,
    ) -> Continuity {
        let key = (source.clone(), epoch);
        let before = self.sources.insert(key, (counter, now_ms));
        let Some((last, _)) = before else {
            // Another epoch of the same gateway starts anew: forget the old.
            self.sources.retain(|(gateway, e), (_, at)| {
                (gateway != source || *e == epoch) && now_ms.saturating_sub(*at) < FORGET_AFTER_MS
            });
            return Continuity::NewSource;
        };
        let expected = if has_items { last + 1 } else { last };
        if counter == expected { Continuity::Whole } else { Continuity::Hole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_last_message_shows_in_the_repeat() {
        let (mut out, mut inbound) = (Outbound::default(), Inbound::default());
        let (a, b) = (GatewayId::new("a").unwrap(), GatewayId::new("b").unwrap());
        let first = out.next(&b, 0);
        assert_eq!(inbound.observe(&a, 7, first, true, 0), Continuity::NewSource);
        let second = out.next(&b, 10);
        assert_eq!(inbound.observe(&a, 7, second, true, 10), Continuity::Whole);
        let _lost = out.next(&b, 20);
        assert!(out.repeats(500, REPEAT_AFTER_MS).is_empty(), "too soon");
        let repeats = out.repeats(1_100, REPEAT_AFTER_MS);
        assert_eq!(repeats, [(b.clone(), 3)]);
        assert!(out.repeats(5_000, REPEAT_AFTER_MS).is_empty(), "once");
        assert_eq!(inbound.observe(&a, 7, 3, false, 1_100), Continuity::Hole);
        assert_eq!(inbound.observe(&a, 7, out.next(&b, 1_200), true, 1_200), Continuity::Whole);
        assert_eq!(inbound.observe(&a, 8, 1, true, 1_300), Continuity::NewSource);
    }
}
