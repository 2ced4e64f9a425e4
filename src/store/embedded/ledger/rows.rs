//! The rows of the ledger: their keys and values. The first byte of a key is
//! its kind; none is that of a row of another space.

use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

use crate::analytics::{By, Day, Entry, InstallId, Place, Position};
use crate::store::embedded::engine::EngineError;
use crate::types::UserId;

const LOG: u8 = 0x10;
const ID: u8 = 0x11;
const DAY: u8 = 0x12;
const NUMBER: u8 = 0x13;
const PERSON: u8 = 0x14;
const SAMPLE: u8 = 0x15;
const MARK: u8 = 0x16;

/// Length of a day in a key.
const DAY_LENGTH: usize = 10;

/// An entry of the log.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EntryRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    user: i64,
    #[prost(string, tag = "3")]
    install: String,
    #[prost(int64, tag = "4")]
    at: i64,
    #[prost(int64, tag = "5")]
    received_at: i64,
    #[prost(string, tag = "6")]
    id: String,
    #[prost(string, tag = "7")]
    province: String,
    #[prost(string, tag = "8")]
    city: String,
    #[prost(string, tag = "9")]
    properties: String,
}

/// There is nothing more to say.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Nothing {}

/// A day.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DayRow {
    /// How often it was counted anew.
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    /// Whose rows count.
    #[prost(fixed64, tag = "2")]
    pub(super) count: u64,
    /// Nobody can come to it any more.
    #[prost(bool, tag = "3")]
    pub(super) is_closed: bool,
}

/// How many came.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NumberRow {
    #[prost(uint64, tag = "1")]
    pub(super) people: u64,
    /// 0 = in total, 1 = of a province, 2 = of a city.
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    province: String,
    #[prost(string, tag = "4")]
    city: String,
}

/// How many were online.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct SampleRow {
    #[prost(uint64, tag = "1")]
    pub(super) online: u64,
}

/// A position, or a number.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct MarkRow {
    #[prost(uint64, tag = "1")]
    pub(super) ms: u64,
    #[prost(uint64, tag = "2")]
    pub(super) n: u64,
}

impl From<Position> for MarkRow {
    fn from(at: Position) -> Self {
        Self { ms: at.ms, n: at.n }
    }
}

impl From<MarkRow> for Position {
    fn from(row: MarkRow) -> Self {
        Self { ms: row.ms, n: row.n }
    }
}

impl From<Entry> for EntryRow {
    fn from(entry: Entry) -> Self {
        let Entry { name, user, install, at, received_at, id, place, properties } = entry;
        let install = install.as_ref().map_or_else(String::new, |install| install.as_str().to_owned());
        let Place { province, city } = place;
        let user = user.map_or(0, UserId::get);
        Self { name, user, install, at, received_at, id, province, city, properties }
    }
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Self {
            name: row.name,
            user: UserId::new(row.user).ok(),
            install: InstallId::new(&row.install).ok(),
            at: row.at,
            received_at: row.received_at,
            id: row.id,
            place: Place { province: row.province, city: row.city },
            properties: row.properties,
        }
    }
}

/// What a number is of; `None` = of all.
pub(super) type Group = Option<(By, Place)>;

impl NumberRow {
    pub(super) fn of(group: &Group) -> Self {
        let (kind, place) = match group {
            None => (0, Place::default()),
            Some((By::Province, place)) => (1, place.clone()),
            Some((By::City, place)) => (2, place.clone()),
        };
        Self { people: 0, kind, province: place.province, city: place.city }
    }

    /// Where it is counted.
    pub(super) fn place(self) -> Group {
        let place = Place { province: self.province, city: self.city };
        match self.kind {
            1 => Some((By::Province, place)),
            2 => Some((By::City, place)),
            _ => None,
        }
    }
}

/// In 16 bytes, whatever its length.
fn hash(group: &Group) -> [u8; 16] {
    let Some((by, place)) = group else { return [0; 16] };
    let kind = if *by == By::Province { "p" } else { "c" };
    xxh3_128(format!("{kind}{}\u{1f}{}", place.province, place.city).as_bytes()).to_be_bytes()
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Of an [`EntryRow`].
pub(super) fn entry(at: Position) -> Vec<u8> {
    key(LOG, &[&at.ms.to_be_bytes(), &at.n.to_be_bytes()])
}

/// Where those begin.
pub(super) fn entries() -> Vec<u8> {
    vec![LOG]
}

/// The position an entry's key ends with.
pub(super) fn position(key: &[u8]) -> Result<Position, EngineError> {
    let number: Option<&[u8; 16]> = key.last_chunk();
    let number = number.ok_or_else(|| EngineError::Damaged("an entry's key".to_owned()))?;
    let number = u128::from_be_bytes(*number);
    let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
    Ok(Position { ms: half(number >> 64), n: half(number) })
}

/// That an id was used in this period.
pub(super) fn id(period: i64, id: [u8; 16]) -> Vec<u8> {
    key(ID, &[&period.to_be_bytes(), &id])
}

/// Where those begin.
pub(super) fn ids() -> Vec<u8> {
    vec![ID]
}

/// The period of an id's key.
pub(super) fn period(key: &[u8]) -> Result<i64, EngineError> {
    let number = key.get(1..9).and_then(|bytes| bytes.first_chunk());
    number
        .map(|bytes| i64::from_be_bytes(*bytes))
        .ok_or_else(|| EngineError::Damaged("an id's key".to_owned()))
}

/// Of a [`DayRow`].
pub(super) fn day(day: Day) -> Vec<u8> {
    key(DAY, &[day.to_string().as_bytes()])
}

/// Where those begin.
pub(super) fn days() -> Vec<u8> {
    vec![DAY]
}

/// The day of a [`DayRow`]'s key.
pub(super) fn day_of(key: &[u8]) -> Result<Day, EngineError> {
    let text = key.get(1..=DAY_LENGTH).and_then(|text| std::str::from_utf8(text).ok());
    let day = text.and_then(|text| Day::parse(text).ok());
    day.ok_or_else(|| EngineError::Damaged("a day's key".to_owned()))
}

/// Of a [`NumberRow`] in this count.
pub(super) fn number(day: Day, count: u64, group: &Group) -> Vec<u8> {
    key(NUMBER, &[day.to_string().as_bytes(), &count.to_be_bytes(), &hash(group)])
}

/// Where those of a count begin; without a count, those of the day.
pub(super) fn numbers(day: Day, count: Option<u64>) -> Vec<u8> {
    of_count(NUMBER, day, count)
}

/// That somebody was counted; it has no value.
pub(super) fn person(day: Day, count: u64, group: &Group, person: &str) -> Vec<u8> {
    key(PERSON, &[day.to_string().as_bytes(), &count.to_be_bytes(), &hash(group), person.as_bytes()])
}

/// Where those of a count begin; without a count, those of the day.
pub(super) fn people(day: Day, count: Option<u64>) -> Vec<u8> {
    of_count(PERSON, day, count)
}

fn of_count(kind: u8, day: Day, count: Option<u64>) -> Vec<u8> {
    let count = count.map(u64::to_be_bytes);
    key(kind, &[day.to_string().as_bytes(), count.as_ref().map_or(&[], |bytes| &bytes[..])])
}

/// Of a [`SampleRow`].
pub(super) fn sample(at: i64) -> Vec<u8> {
    key(SAMPLE, &[&(u64::try_from(at.saturating_add(1)).unwrap_or(0)).to_be_bytes()])
}

/// Where those begin.
pub(super) fn samples() -> Vec<u8> {
    vec![SAMPLE]
}

/// The instant a sample's key ends with.
pub(super) fn instant(key: &[u8]) -> Result<i64, EngineError> {
    let number = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let at = number.and_then(|number| i64::try_from(number).ok()).map(|number| number.saturating_sub(1));
    at.ok_or_else(|| EngineError::Damaged("a sample's key".to_owned()))
}

/// Of a [`MarkRow`].
pub(super) fn mark(name: &str) -> Vec<u8> {
    key(MARK, &[name.as_bytes()])
}

/// Reads a value.
pub(super) fn decode<T: Message + Default>(row: &[u8]) -> Result<T, EngineError> {
    Ok(T::decode(row)?)
}
