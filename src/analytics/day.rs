//! Calendar days in a time zone.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Not a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a day is written YYYY-MM-DD, e.g. 2026-11-21")]
pub(crate) struct DayError;

/// Not a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time zone has an IANA name, e.g. UTC or Asia/Shanghai")]
pub(crate) struct ZoneError;

/// A calendar day, in whatever zone days are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(Date);

impl Day {
    /// Reads `YYYY-MM-DD`.
    pub(crate) fn parse(text: &str) -> Result<Self, DayError> {
        let is_plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let date: Option<Date> = text.parse().ok().filter(|_| is_plain);
        let date = date.filter(|date| (1970..=9998).contains(&date.year()));
        date.map(Self).ok_or(DayError)
    }

    /// The one `days` later, or earlier; at the ends of the calendar the last.
    #[must_use]
    pub(crate) fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days.clamp(-10_000_000, 10_000_000).days()))
    }

    /// How many days lie between this one and a later one.
    #[must_use]
    pub(crate) fn until(self, later: Self) -> i64 {
        later.0.since(self.0).map_or(0, |span| span.get_days().into())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The time zone in which days are counted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// UTC.
    #[must_use]
    pub(crate) fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// By its IANA name.
    pub(crate) fn parse(name: &str) -> Result<Self, ZoneError> {
        let zone = TimeZone::get(name).map_err(|_| ZoneError)?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Ok(Self { name, zone })
    }

    /// The IANA name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The day an instant, unix ms, belongs to.
    #[must_use]
    pub(crate) fn day(&self, at: i64) -> Day {
        let at = Timestamp::from_millisecond(at.max(0)).unwrap_or(Timestamp::MAX);
        Day(self.zone.to_datetime(at).date())
    }

    /// When a day begins and when the next one does, unix ms. Between them lie
    /// 23 or 25 hours where clocks are changed.
    #[must_use]
    pub(crate) fn span(&self, day: Day) -> (i64, i64) {
        (self.start(day), self.start(day.plus(1)))
    }

    fn start(&self, day: Day) -> i64 {
        day.0.to_zoned(self.zone.clone()).map_or(i64::MAX, |start| start.timestamp().as_millisecond())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

/// Reads an instant by RFC 3339, to the millisecond; unix ms. A leap second is
/// the one before it.
pub(crate) fn instant(text: &str) -> Option<i64> {
    let (local, rest) = text.split_at_checked(19)?;
    if !is_of_form(local, "9999-99-99T99:99:99") {
        return None;
    }
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    let is_offset = is_of_form(offset, "Z")
        || is_of_form(offset, "+99:99") && offset.get(1..3)? < "24" && offset.get(4..6)? < "60";
    if fraction.is_empty() || !is_offset {
        return None;
    }
    let millis = fraction.get(..3).unwrap_or(fraction);
    format!("{local}.{millis}{offset}").parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// Whether a text has this form, with 9 for any digit and + for either sign.
fn is_of_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| match form {
        b'9' => byte.is_ascii_digit(),
        b'+' => byte == b'+' || byte == b'-',
        b'T' => byte.eq_ignore_ascii_case(&b'T') || byte == b' ',
        b'Z' => byte.eq_ignore_ascii_case(&b'Z'),
        form => byte == form,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn days_are_read_strictly() {
        assert_eq!(Day::parse("2026-11-21").unwrap().to_string(), "2026-11-21");
        for wrong in ["", "2026-11-31", "20261121", "2026-1-1", "2026-11-21T00", "-002026-01", "1969-12-31"] {
            assert_eq!(Day::parse(wrong), Err(DayError), "{wrong}");
        }
        let day = Day::parse("2026-12-31").unwrap();
        assert_eq!((day.plus(1).to_string(), day.until(day.plus(400))), ("2027-01-01".to_owned(), 400));
    }

    #[test]
    fn a_day_ends_at_its_own_midnight() {
        let zone = Zone::parse("Asia/Shanghai").unwrap();
        let (start, end) = zone.span(Day::parse("2026-11-21").unwrap());
        assert_eq!(start, instant("2026-11-20T16:00:00Z").unwrap());
        assert_eq!(end - start, 24 * HOUR);
        assert_eq!(zone.day(end - 1).to_string(), "2026-11-21");
        assert_eq!(zone.day(end).to_string(), "2026-11-22");
        assert_eq!(Zone::utc().day(end).to_string(), "2026-11-21");
    }

    #[test]
    fn a_change_of_clocks_makes_a_day_shorter_or_longer() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        for (day, hours) in [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)] {
            let day = Day::parse(day).unwrap();
            let (start, end) = zone.span(day);
            assert_eq!(end - start, hours * HOUR, "{day}");
            let quarters = (start..end).step_by(900_000);
            assert!(quarters.into_iter().all(|at| zone.day(at) == day), "{day}");
            assert!(zone.day(start - 1) < day && zone.day(end) > day);
        }
        // Midnight itself is skipped here.
        let zone = Zone::parse("America/Santiago").unwrap();
        let (start, end) = zone.span(Day::parse("2026-09-06").unwrap());
        assert_eq!(end - start, 23 * HOUR);
    }

    #[test]
    fn an_instant_is_read_by_rfc_3339_and_by_nothing_else() {
        let noon = instant("2026-11-21T12:00:00Z").unwrap();
        assert_eq!(Zone::utc().day(noon).to_string(), "2026-11-21");
        for same in [
            "2026-11-21t12:00:00z",
            "2026-11-21 12:00:00.000+00:00",
            "2026-11-21T12:00:00.0009999999999999999999Z",
            "2026-11-21T12:00:00-00:00",
            "2026-11-21T20:00:00+08:00",
            "2026-11-21T02:30:00-09:30",
            "2026-11-22T11:59:00+23:59",
        ] {
            assert_eq!(instant(same), Some(noon), "{same}");
        }
        assert_eq!(instant("2026-11-21T12:00:00.5Z"), Some(noon + 500));
        assert_eq!(instant("2016-12-31T23:59:60Z"), instant("2016-12-31T23:59:59Z"), "a leap second");
        assert_eq!(instant("2017-01-01T07:59:60.25+08:00"), instant("2016-12-31T23:59:59.250Z"));
        for wrong in [
            "",
            "2026-11-21",
            "2026-11-21T12:00Z",
            "2026-11-21T12Z",
            "2026-11-21T12:00:00",
            "2026-11-21T12:00:00+08",
            "2026-11-21T12:00:00+0800",
            "2026-11-21T12:00:00+24:00",
            "2026-11-21T12:00:00+08:60",
            "2026-11-21T12:00:00+08:00:00",
            "2026-11-21T12:00:00Z[UTC]",
            "2026-11-21T12:00:00,5Z",
            "2026-11-21T12:00:00.Z",
            "2026-11-21T12:00:00.5",
            "2026-11-21T12:00:61Z",
            "2026-11-21T24:00:00Z",
            "2026-02-29T12:00:00Z",
            "20261121T120000Z",
            "+002026-11-21T12:00:00Z",
            " 2026-11-21T12:00:00Z",
            "2026-11-21T12:00:00Zé",
            "2026-11-21T12:00:0é",
        ] {
            assert_eq!(instant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_zone_has_an_iana_name() {
        assert_eq!(Zone::parse("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::parse("UTC").unwrap(), Zone::utc());
        for wrong in ["", "Mars/Base", "+08:00", "../etc/passwd"] {
            assert!(Zone::parse(wrong).is_err(), "{wrong}");
        }
    }
}
