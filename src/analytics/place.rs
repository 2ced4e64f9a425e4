//! Where somebody is: a province, and a city in it, as the client or a
//! database of addresses names them.

use std::collections::HashSet;

use super::Day;

/// Longest name of a province or a city, bytes.
const LONGEST: usize = 64;
/// Most provinces and most cities that are told apart on a day: clients choose
/// these texts.
const MOST: usize = 10_000;
/// Days of which places are remembered.
const DAYS: usize = 10;

/// A province and a city; empty = not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The province.
    pub province: String,
    /// The city, by its name within the province.
    pub city: String,
}

/// What numbers are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum By {
    /// Provinces.
    Province,
    /// Cities.
    City,
}

impl Place {
    /// As a client named it. What is too long, or holds control characters, is
    /// taken for not said.
    #[must_use]
    pub(crate) fn named(province: Option<&str>, city: Option<&str>) -> Self {
        let clean = |text: Option<&str>| {
            let text = text.unwrap_or_default().trim();
            let is_good = text.len() <= LONGEST && !text.chars().any(char::is_control);
            if is_good { text.to_owned() } else { String::new() }
        };
        Self { province: clean(province), city: clean(city) }
    }

    /// Whether nothing is known.
    #[must_use]
    pub(crate) fn is_unknown(&self) -> bool {
        self.province.is_empty() && self.city.is_empty()
    }

    /// The place it counts for in numbers by province, or by city; `None` = it
    /// is not known.
    #[must_use]
    pub(crate) fn group(&self, by: By) -> Option<Self> {
        match by {
            By::Province if self.province.is_empty() => None,
            By::Province => Some(Self { province: self.province.clone(), city: String::new() }),
            By::City if self.city.is_empty() => None,
            By::City => Some(self.clone()),
        }
    }
}

/// The places of the last days, not more than can be kept.
#[derive(Debug, Default)]
pub(crate) struct Places {
    days: Vec<(Day, HashSet<Place>)>,
}

impl Places {
    /// The place as it is counted on this day, and whether it was one too many
    /// and is therefore not told apart.
    pub(crate) fn admit(&mut self, day: Day, place: Place) -> (Place, bool) {
        if place.is_unknown() {
            return (place, false);
        }
        let index = self.days.iter().position(|(known, _)| *known == day).unwrap_or_else(|| {
            self.days.push((day, HashSet::new()));
            self.days.sort_by_key(|(day, _)| std::cmp::Reverse(*day));
            self.days.truncate(DAYS);
            self.days.iter().position(|(known, _)| *known == day).unwrap_or(usize::MAX)
        });
        let Some((_, known)) = self.days.get_mut(index) else { return (Place::default(), true) };
        if known.contains(&place) {
            return (place, false);
        }
        if known.len() >= MOST {
            return (Place::default(), true);
        }
        known.insert(place.clone());
        (place, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_name_is_not_known() {
        let place = Place::named(Some(" Guangdong "), Some("a\nb"));
        assert_eq!((place.province.as_str(), place.city.as_str()), ("Guangdong", ""));
        assert!(Place::named(Some(&"x".repeat(65)), None).is_unknown());
        assert_eq!(place.group(By::City), None);
        assert_eq!(place.group(By::Province), Some(place));
    }

    #[test]
    fn invented_places_are_not_told_apart_without_end() {
        let mut places = Places::default();
        let day = Day::parse("2026-11-21").unwrap();
        let place = |n: usize| Place::named(None, Some(&format!("city {n}")));
        for n in 0..MOST {
            assert_eq!(places.admit(day, place(n)), (place(n), false));
        }
        assert_eq!(places.admit(day, place(MOST)), (Place::default(), true));
        assert_eq!(places.admit(day, place(3)), (place(3), false));
        for n in 1..20 {
            assert!(!places.admit(day.plus(n), place(MOST)).1);
        }
        assert_eq!(places.days.len(), DAYS);
        assert!(places.admit(day, place(3)).1, "too long ago to be told apart");
    }
}
