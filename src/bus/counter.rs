//! The counters that make a lost bus message visible. Pure.

use std::collections::HashMap;

use crate::types::GatewayId;

/// How long after the last message its number is repeated: twice, since a
/// repeat can be lost as well.
const REPEATS_MS: [u64; 2] = [1_000, 4_000];
/// The longest a lost message stays unseen, with the publisher's tick.
const UNSEEN_MS: i64 = 5_000;
/// A source or destination silent for this long is forgotten.
const FORGET_AFTER_MS: u64 = 3_600_000;

#[derive(Debug)]
struct Sent {
    counter: u64,
    at_ms: u64,
    /// How often the number was repeated.
    repeats: usize,
}

/// The numbers of what left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// No other destination was ever given a higher one.
    pub floor: u64,
    /// The last one of each destination.
    pub sent: Vec<(GatewayId, u64)>,
}

/// How far a source was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Which.
    pub source: GatewayId,
    /// Its cold start.
    pub epoch: u64,
    /// The last number.
    pub counter: u64,
    /// When nothing was missing, unix ms.
    pub whole_at: i64,
}

/// Numbers what leaves, per destination.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// No destination was ever given a higher number that is now forgotten.
    floor: u64,
    destinations: HashMap<GatewayId, Sent>,
}

impl Outbound {
    /// Starts behind `floor`, which grows from one start to the next: whoever
    /// followed the numbers of an earlier start sees a hole, not old news.
    #[must_use]
    pub(crate) fn new(floor: u64) -> Self {
        Self { floor, destinations: HashMap::new() }
    }

    /// The number of the next message to `gateway`, or of one that cannot be
    /// sent, which makes the loss visible.
    pub(crate) fn next(&mut self, gateway: &GatewayId, now_ms: u64) -> u64 {
        let counter = self.destinations.get(gateway).map_or(self.floor, |sent| sent.counter) + 1;
        self.destinations.insert(gateway.clone(), Sent { counter, at_ms: now_ms, repeats: 0 });
        counter
    }

    /// Whom the last number is to be repeated to: it was sent long enough ago,
    /// or, in a `hurry`, whenever.
    pub(crate) fn due(&mut self, now_ms: u64, hurry: bool) -> Vec<(GatewayId, u64)> {
        let floor = &mut self.floor;
        self.destinations.retain(|_, sent| {
            let kept = now_ms.saturating_sub(sent.at_ms) < FORGET_AFTER_MS;
            // Numbers never go back, whoever was forgotten.
            *floor = if kept { *floor } else { sent.counter.max(*floor) };
            kept
        });
        let is_due = |sent: &Sent| {
            let silent = now_ms.saturating_sub(sent.at_ms);
            REPEATS_MS.get(sent.repeats).is_some_and(|after| hurry || silent >= *after)
        };
        let due = self.destinations.iter().filter(|(_, sent)| is_due(sent));
        due.map(|(gateway, sent)| (gateway.clone(), sent.counter)).collect()
    }

    /// The numbers given, for another process to go on with: none that is not
    /// listed is above the first.
    #[must_use]
    pub(crate) fn numbers(&self) -> Numbers {
        let sent = self.destinations.iter().map(|(gateway, sent)| (gateway.clone(), sent.counter));
        Numbers { floor: self.floor, sent: sent.collect() }
    }

    /// Goes on with the numbers of another process.
    pub(crate) fn resume(&mut self, numbers: Numbers, now_ms: u64) {
        self.floor = numbers.floor;
        let sent = |(gateway, counter)| (gateway, Sent { counter, at_ms: now_ms, repeats: 0 });
        self.destinations = numbers.sent.into_iter().map(sent).collect();
    }

    /// The number was repeated to this gateway. Until this is said it stays
    /// due.
    pub(crate) fn repeated(&mut self, gateway: &GatewayId) {
        if let Some(sent) = self.destinations.get_mut(gateway) {
            sent.repeats += 1;
        }
    }
}

/// What a number says about the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// Nothing is missing.
    Whole,
    /// An old number: overtaken on the way, or there twice. What is missing
    /// was seen to be missing before. Its items are handed on: whoever has
    /// them already knows them by their seq.
    Late,
    /// The first message of this source and epoch. What it sent before is
    /// unknown from this time on, unix ms.
    NewSource(i64),
    /// At least one message was lost, after this time, unix ms.
    Hole(i64),
}

#[derive(Debug, Clone, Copy)]
struct Source {
    epoch: u64,
    counter: u64,
    /// When nothing was missing, unix ms.
    whole_at: i64,
}

/// Follows what arrives, per source.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    sources: HashMap<GatewayId, Source>,
}

impl Inbound {
    /// How far each source was heard.
    #[must_use]
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let heard = |(source, known): (&GatewayId, &Source)| Heard {
            source: source.clone(),
            epoch: known.epoch,
            counter: known.counter,
            whole_at: known.whole_at,
        };
        self.sources.iter().map(heard).collect()
    }

    /// Goes on where another process was.
    pub(crate) fn resume(&mut self, heard: Vec<Heard>) {
        for Heard { source, epoch, counter, whole_at } in heard {
            self.sources.insert(source, Source { epoch, counter, whole_at });
        }
    }

    /// Takes note of a message's number at `now`, unix ms; one without items
    /// repeats the last.
    pub(crate) fn observe(
        &mut self,
        source: &GatewayId,
        epoch: u64,
        counter: u64,
        has_items: bool,
        now: i64,
    ) -> Continuity {
        let seen = Source { epoch, counter, whole_at: now };
        let Some(known) = self.sources.get_mut(source) else {
            let forget = i64::try_from(FORGET_AFTER_MS).unwrap_or(i64::MAX);
            self.sources.retain(|_, known| now.saturating_sub(known.whole_at) < forget);
            self.sources.insert(source.clone(), seen);
            return Continuity::NewSource(now.saturating_sub(UNSEEN_MS));
        };
        if epoch < known.epoch {
            return Continuity::Late;
        }
        let before = std::mem::replace(known, seen);
        if epoch > before.epoch {
            // The last of the epoch before may be missing, too.
            return Continuity::NewSource(before.whole_at.min(now.saturating_sub(UNSEEN_MS)));
        }
        let expected = if has_items { before.counter.saturating_add(1) } else { before.counter };
        if counter < expected {
            *known = before;
            return Continuity::Late;
        }
        if counter == expected { Continuity::Whole } else { Continuity::Hole(before.whole_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(name: &str) -> GatewayId {
        GatewayId::new(name).unwrap()
    }

    #[test]
    fn a_lost_last_message_shows_in_a_repeat_even_if_one_is_lost() {
        let (mut out, mut inbound) = (Outbound::new(100), Inbound::default());
        let (a, b) = (gateway("a"), gateway("b"));
        let first = out.next(&b, 0);
        assert_eq!(inbound.observe(&a, 7, first, true, 10_000), Continuity::NewSource(5_000));
        let second = out.next(&b, 10);
        assert_eq!(inbound.observe(&a, 7, second, true, 10_010), Continuity::Whole);
        let _lost = out.next(&b, 20);
        assert!(out.due(500, false).is_empty(), "too soon");
        assert_eq!(out.due(1_100, false), [(b.clone(), 103)]);
        assert_eq!(out.due(1_200, false), [(b.clone(), 103)], "it was not sent yet");
        out.repeated(&b);
        assert!(out.due(3_900, false).is_empty());
        assert_eq!(out.due(3_900, true), [(b.clone(), 103)], "in a hurry");
        assert_eq!(out.due(4_100, false), [(b.clone(), 103)]);
        out.repeated(&b);
        assert!(out.due(9_000, true).is_empty(), "twice is all");
        assert_eq!(inbound.observe(&a, 7, 103, false, 14_100), Continuity::Hole(10_010));
        assert_eq!(inbound.observe(&a, 7, 103, false, 14_200), Continuity::Whole);
        assert_eq!(inbound.observe(&a, 7, out.next(&b, 5_000), true, 15_000), Continuity::Whole);
    }

    #[test]
    fn what_is_late_or_there_twice_is_no_hole() {
        let (mut inbound, a) = (Inbound::default(), gateway("a"));
        inbound.observe(&a, 7, 1, true, 1);
        assert_eq!(inbound.observe(&a, 7, 3, true, 2), Continuity::Hole(1));
        assert_eq!(inbound.observe(&a, 7, 2, true, 3), Continuity::Late);
        assert_eq!(inbound.observe(&a, 7, 3, true, 4), Continuity::Late, "twice");
        assert_eq!(inbound.observe(&a, 7, 2, false, 5), Continuity::Late, "an old repeat");
        assert_eq!(inbound.observe(&a, 7, 4, true, 6), Continuity::Whole);
    }

    #[test]
    fn another_start_of_a_source_is_a_new_source() {
        let (mut inbound, a) = (Inbound::default(), gateway("a"));
        inbound.observe(&a, 7, 9, true, 1_000);
        assert_eq!(inbound.observe(&a, 8, 1, true, 60_000), Continuity::NewSource(1_000));
        assert_eq!(inbound.observe(&a, 7, 10, true, 60_001), Continuity::Late, "of the one before");
        assert_eq!(inbound.observe(&a, 8, 2, true, 60_002), Continuity::Whole);
        assert_eq!(inbound.observe(&gateway("b"), 7, 1, true, 60_003), Continuity::NewSource(55_003));
    }

    #[test]
    fn numbers_of_who_was_forgotten_do_not_go_back() {
        let mut out = Outbound::new(0);
        let (b, c) = (gateway("b"), gateway("c"));
        for now in 0..5 {
            out.next(&b, now);
        }
        out.next(&c, FORGET_AFTER_MS);
        out.due(FORGET_AFTER_MS + 10, false);
        assert_eq!(out.destinations.len(), 1);
        assert_eq!(out.next(&b, FORGET_AFTER_MS + 20), 6);
    }
}
