//! See the module.

/// Deadlines in slots of equal width.
#[derive(Debug)]
pub struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    width_ms: u64,
    /// Every tick below this one has been handed out.
    next_tick: u64,
    len: usize,
}

impl<T> Wheel<T> {
    /// `slots` slots of `width_ms` milliseconds each, starting at `now_ms`.
    /// A deadline further away than the whole wheel goes round again.
    #[must_use]
    pub fn new(slots: usize, width_ms: u64, now_ms: u64) -> Self {
        let width_ms = width_ms.max(1);
        let slots = (0..slots.max(1)).map(|_| Vec::new()).collect();
        Self { slots, width_ms, next_tick: now_ms / width_ms, len: 0 }
    }

    /// Entries held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files `item` under `due_ms`; a time already past falls due at the next
    /// turn.
    pub fn insert(&mut self, due_ms: u64, item: T) {
        // Rounded up: never early, late by less than one width.
        let tick = due_ms.div_ceil(self.width_ms).max(self.next_tick);
        let index = self.index(tick);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.push((tick, item));
            self.len += 1;
        }
    }

    /// Hands out everything due at `now_ms`.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        let now_tick = now_ms / self.width_ms;
        // After a long pause one full round visits every slot.
        let rounds = now_tick.saturating_sub(self.next_tick).saturating_add(1);
        let visits = if now_tick < self.next_tick {
            0
        } else {
            rounds.min(u64::try_from(self.slots.len()).unwrap_or(u64::MAX))
        };
        for offset in 0..visits {
            let index = self.index(self.next_tick + offset);
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let before = due.len();
            due.extend(slot.extract_if(.., |(tick, _)| *tick <= now_tick).map(|(_, item)| item));
            self.len -= due.len() - before;
            if slot.is_empty() {
                // A burst of entries must not keep its memory for ever.
                slot.shrink_to(64);
            }
        }
        if visits > 0 {
            self.next_tick = now_tick + 1;
        }
    }

    fn index(&self, tick: u64) -> usize {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        usize::try_from(tick % slots).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the obvious model: a list of deadlines.
        #[test]
        fn never_early_and_at_most_one_width_late(
            steps in proptest::collection::vec((0_u64..5_000, proptest::option::of(0_u64..20_000)), 1..60)
        ) {
            let (width, mut now) = (100, 1_000);
            let mut wheel = Wheel::new(16, width, now);
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (id, (wait, insert)) in steps.into_iter().enumerate() {
                now += wait;
                let mut due = Vec::new();
                wheel.advance(now, &mut due);
                for id in due {
                    let at = model.iter().position(|&(_, other)| other == id).unwrap();
                    prop_assert!(model.remove(at).0 <= now, "early");
                }
                prop_assert!(model.iter().all(|&(deadline, _)| deadline + width > now), "late");
                if let Some(after) = insert {
                    wheel.insert(now + after, id);
                    model.push((now + after, id));
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
