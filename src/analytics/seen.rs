//! Who was seen on the day that is now, so that he costs the log one entry.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Day, Person, Place};

/// Most people of one day; 11 bytes each, at the next power of two.
const MOST: usize = 4_000_000;

/// A person's number, and his place's: in bytes, or each would take six more
/// for the alignment.
type People = HashMap<[u8; 8], [u8; 2], RandomState>;

/// What a look at somebody finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Not seen before on this day, or not where.
    First,
    /// Seen already.
    Again,
    /// There is no room to remember more.
    Full,
}

/// The people of one day, each with the place he was last seen in.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    day: Option<Day>,
    people: People,
    /// By their number.
    places: Vec<Place>,
    numbers: HashMap<Place, u16, RandomState>,
    before: People,
}

impl Seen {
    /// Whether somebody was seen on this day already, and, where a place can be
    /// told now, one is known.
    #[must_use]
    pub(crate) fn knows(&self, day: Day, person: &Person, is_placed: bool) -> bool {
        let place = self.people.get(&key(person)).filter(|_| self.day == Some(day));
        place.is_some_and(|place| !is_placed || self.is_known(*place))
    }

    fn is_known(&self, place: [u8; 2]) -> bool {
        self.at(place).is_some_and(|place| !place.is_unknown())
    }

    fn at(&self, place: [u8; 2]) -> Option<&Place> {
        self.places.get(usize::from(u16::from_ne_bytes(place)))
    }

    /// A person is here. On a new day everybody is new; where they were is
    /// remembered for those who stay ([`Self::place`]).
    pub(crate) fn visit(&mut self, day: Day, person: &Person, place: &Place) -> Visit {
        match self.day {
            // A straggler: it was counted when that day was, or is now.
            Some(known) if day < known => return Visit::First,
            Some(known) if day == known => {}
            _ => {
                self.before = std::mem::take(&mut self.people);
                self.day = Some(day);
            }
        }
        let key = key(person);
        match self.people.get(&key) {
            // Where he is is learnt only now.
            Some(known) if !place.is_unknown() && !self.is_known(*known) => {}
            Some(_) => return Visit::Again,
            None if self.people.len() >= MOST => return Visit::Full,
            None => {}
        }
        let place = self.number(place);
        self.people.insert(key, place);
        Visit::First
    }

    /// Where somebody was when he was last seen, today or the day before.
    #[must_use]
    pub(crate) fn place(&self, person: &Person) -> Place {
        let key = key(person);
        let place = self.people.get(&key).or_else(|| self.before.get(&key));
        place.and_then(|place| self.at(*place)).cloned().unwrap_or_default()
    }

    /// Takes a first visit back: it was not recorded.
    pub(crate) fn forget(&mut self, person: &Person) {
        self.people.remove(&key(person));
    }

    /// Where people of the day before were is not needed any more, nor are
    /// the places that nobody is in today.
    pub(crate) fn forget_before(&mut self) {
        self.before = People::default();
        let old = std::mem::take(&mut self.places);
        self.numbers.clear();
        let mut people = std::mem::take(&mut self.people);
        for number in people.values_mut() {
            let place = old.get(usize::from(u16::from_ne_bytes(*number)));
            *number = self.number(&place.cloned().unwrap_or_default());
        }
        self.people = people;
    }

    /// Everybody of the day, by place, in parts of at most `most`.
    #[must_use]
    pub(crate) fn carry(&self, most: usize) -> Vec<(Day, Place, Vec<u64>)> {
        let Some(day) = self.day else { return Vec::new() };
        let mut by_place: HashMap<[u8; 2], Vec<u64>> = HashMap::new();
        for (person, place) in &self.people {
            by_place.entry(*place).or_default().push(u64::from_ne_bytes(*person));
        }
        let mut carried = Vec::new();
        for (place, people) in by_place {
            let place = self.at(place).cloned().unwrap_or_default();
            carried.extend(people.chunks(most).map(|part| (day, place.clone(), part.to_vec())));
        }
        carried
    }

    /// They were seen already.
    pub(crate) fn resume(&mut self, day: Day, place: &Place, people: Vec<u64>) {
        if self.day.is_none_or(|known| known < day) {
            self.people.clear();
            self.day = Some(day);
        }
        let place = self.number(place);
        self.people.extend(people.into_iter().map(|person| (person.to_ne_bytes(), place)));
    }

    fn number(&mut self, place: &Place) -> [u8; 2] {
        if let Some(number) = self.numbers.get(place) {
            return number.to_ne_bytes();
        }
        // There are far fewer: `Places` admits so many of a day.
        let number = u16::try_from(self.places.len()).unwrap_or(u16::MAX);
        if number < u16::MAX {
            self.places.push(place.clone());
            self.numbers.insert(place.clone(), number);
        }
        number.to_ne_bytes()
    }
}

fn key(person: &Person) -> [u8; 8] {
    person.number().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UserId;

    fn user(id: i64) -> Person {
        Person::User(UserId::new(id).unwrap())
    }

    #[test]
    fn one_entry_a_day_and_the_place_is_kept_over_midnight() {
        let day = Day::parse("2026-11-21").unwrap();
        let place = Place::named(Some("Guangdong"), Some("Shenzhen"));
        let mut seen = Seen::default();
        assert_eq!(seen.visit(day, &user(1), &place), Visit::First);
        assert_eq!(seen.visit(day, &user(1), &Place::default()), Visit::Again);
        assert_eq!(seen.visit(day, &user(2), &Place::default()), Visit::First);
        let next = day.plus(1);
        let known = seen.place(&user(1));
        assert_eq!(seen.visit(next, &user(1), &known), Visit::First);
        assert_eq!(seen.visit(day, &user(2), &place), Visit::First, "of the day before");
        assert_eq!((seen.place(&user(1)), seen.place(&user(2))), (place, Place::default()));
        assert!(seen.knows(next, &user(1), false) && !seen.knows(day, &user(1), false));
        seen.visit(next, &user(3), &Place::named(None, Some("Berlin")));
        seen.forget_before();
        assert_eq!(seen.place(&user(3)).city, "Berlin");
        assert_eq!(
            (seen.place(&user(1)).city.as_str(), seen.place(&user(2))),
            ("Shenzhen", Place::default())
        );
        assert_eq!(seen.places.len(), 2);
        seen.forget(&user(1));
        assert_eq!(seen.visit(next, &user(1), &Place::default()), Visit::First);
    }

    #[test]
    fn another_process_goes_on_with_the_same() {
        let day = Day::parse("2026-11-21").unwrap();
        let place = Place::named(Some("Guangdong"), None);
        let (mut before, mut after) = (Seen::default(), Seen::default());
        assert_eq!(before.carry(2), []);
        for id in 1..=5 {
            before.visit(day, &user(id), &place);
        }
        before.visit(day, &user(6), &Place::default());
        let carried = before.carry(2);
        assert_eq!(carried.len(), 4);
        carried.into_iter().for_each(|(day, place, people)| after.resume(day, &place, people));
        assert!((1..=6).all(|id| after.knows(day, &user(id), false)));
        assert_eq!((after.place(&user(5)), after.place(&user(6))), (place, Place::default()));
        assert!(!after.knows(day, &user(7), false));
    }

    #[test]
    fn a_hundred_thousand_take_little() {
        let mut seen = Seen::default();
        let day = Day::parse("2026-11-21").unwrap();
        for id in 1..=100_000 {
            seen.visit(day, &user(id), &Place::default());
        }
        // 131072 and a seventh buckets, each with its byte of control.
        let bytes = seen.people.capacity() * 8 / 7 * (size_of::<([u8; 8], [u8; 2])>() + 1);
        assert!(bytes <= 1_450_000, "{bytes}");
    }

    #[test]
    fn a_place_that_is_learnt_later_counts() {
        let mut seen = Seen::default();
        let day = Day::parse("2026-11-21").unwrap();
        let there = Place::named(Some("Guangdong"), None);
        assert_eq!(seen.visit(day, &user(1), &Place::default()), Visit::First);
        assert!(seen.knows(day, &user(1), false) && !seen.knows(day, &user(1), true));
        assert_eq!(seen.visit(day, &user(1), &Place::default()), Visit::Again);
        assert_eq!(seen.visit(day, &user(1), &there), Visit::First);
        assert!(seen.knows(day, &user(1), true));
        assert_eq!(seen.visit(day, &user(1), &Place::named(Some("Beijing"), None)), Visit::Again);
    }
}
