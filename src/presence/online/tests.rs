//! Changes against a model that knows only what was heard when.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { window_ms: 180_000, grace_ms: 5_000, hold_ms: 20_000 };
const BEGINNING: i64 = 2_000_000_000_000;

/// What happens to one of a few users, and how much later.
#[derive(Debug, Clone, Copy)]
enum Event {
    Heard { user: i64, age_ms: i64 },
    Farewell { user: i64, age_ms: i64 },
    Nothing,
}

fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let event = prop_oneof![
        5 => (1..5_i64, 0..15_000_i64).prop_map(|(user, age_ms)| Event::Heard { user, age_ms }),
        2 => (1..5_i64, 0..1_500_i64).prop_map(|(user, age_ms)| Event::Farewell { user, age_ms }),
        2 => Just(Event::Nothing),
    ];
    // Most steps come each second; sometimes nothing is heard of anybody.
    let pause = prop_oneof![20 => 1..1_200_i64, 3 => 1_200..4_900_i64, 1 => 5_100..400_000_i64];
    proptest::collection::vec((pause, event), 1..400)
}

/// One user: the last heartbeat that counts, and the last farewell that does.
#[derive(Debug, Clone, Copy, Default)]
struct Model {
    online: bool,
    heard: i64,
    left: Option<i64>,
}

impl Model {
    fn is_gone(&self, now: i64, is_held: bool) -> bool {
        let said_so = self.left.is_some_and(|left| left + RULES.grace_ms < now);
        said_so || (!is_held && self.heard + RULES.window_ms < now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn changes_are_those_of_the_model(events in events()) {
        let mut online = Online::new(RULES);
        let mut model: BTreeMap<i64, Model> = BTreeMap::new();
        let (mut now, mut before, mut held) = (BEGINNING, 0, 0);
        let mut newest = 0;
        let mut told: BTreeMap<i64, bool> = BTreeMap::new();
        for (pause, event) in events {
            now += pause;
            if now - before > SILENCE_MS {
                held = now + RULES.hold_ms;
            }
            before = now;
            let mut expected = Vec::new();
            let (mut heard, mut farewells) = (Vec::new(), Vec::new());
            match event {
                Event::Heard { user, age_ms } => {
                    heard.push(Heard { user: UserId::new(user).unwrap(), age_ms });
                    let at = now - age_ms;
                    let known = model.entry(user).or_default();
                    let stale = known.left.is_some_and(|left| at <= left);
                    if !stale {
                        known.left = None;
                        if !known.online {
                            expected.push((user, true));
                            (known.online, known.heard) = (true, at);
                        }
                        known.heard = known.heard.max(at);
                    }
                }
                Event::Farewell { user, age_ms } => {
                    let at = now - age_ms;
                    farewells.push(Farewell { user: UserId::new(user).unwrap(), at });
                    let known = model.entry(user).or_default();
                    if known.online && known.heard <= at {
                        known.left = Some(at);
                    }
                }
                Event::Nothing => {}
            }
            for (user, known) in &mut model {
                if known.online && known.is_gone(now, now < held) {
                    known.online = false;
                    known.left = Some(known.left.unwrap_or(known.heard));
                    expected.push((*user, false));
                }
            }
            let changes = online.step(now * 1_000, &heard, &farewells, 1_000);
            let mut found: Vec<_> = changes.iter().map(|c| (c.user.get(), c.online)).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&found, &expected, "at {}", now);
            for change in changes {
                prop_assert!(change.version > newest, "versions only grow");
                newest = change.version;
                // Each change is one: never twice the same.
                prop_assert_ne!(told.insert(change.user.get(), change.online), Some(change.online));
            }
            let users: Vec<_> = (1..5).map(|id| UserId::new(id).unwrap()).collect();
            let look = online.look(now * 1_000, &users);
            prop_assert_eq!(look.is_settled, now >= held);
            for found in look.found {
                let known = model.get(&found.user.get()).copied().unwrap_or_default();
                prop_assert_eq!(found.online, known.online);
                prop_assert!(found.version <= newest.max(found.version) && (!known.online || found.version > 0));
                prop_assert!(found.online || found.version >= newest, "a look is never older");
            }
            let within = |known: &&Model| known.online && known.heard >= now - 60_000;
            prop_assert_eq!(online.heard_since(now - 60_000), model.values().filter(within).count());
            prop_assert_eq!(online.len(), model.values().filter(|known| known.online).count());
        }
        let mut copy = Online::new(RULES);
        copy.resume(online.carry());
        let sorted = |mut carried: CarriedOnline| { carried.online.sort_unstable(); carried };
        prop_assert_eq!(sorted(copy.carry()), sorted(online.carry()));
    }
}

#[test]
fn who_left_is_forgotten_after_a_day() {
    let mut online = Online::new(RULES);
    let user = UserId::new(1).unwrap();
    let mut now = BEGINNING;
    let mut step = |now: i64, heard: &[Heard]| {
        let changes = online.step(now * 1_000, heard, &[], 10);
        (changes.len(), online.look(now * 1_000, &[user]).found[0].last_seen)
    };
    assert_eq!(step(now, &[Heard { user, age_ms: 0 }]), (1, BEGINNING));
    for _ in 0..60 {
        now += 4_000;
        step(now, &[]);
    }
    assert_eq!(step(now, &[]), (0, BEGINNING), "gone, and known when");
    assert_eq!(step(now + REMEMBERED_MS, &[]), (0, 0));
}
