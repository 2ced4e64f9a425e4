//! Daily numbers: while people can still come to a day, an estimate or a set
//! for everybody and for each place; after that, numbers in one hash.
//!
//! Names of places are no part of a key: it has their hash, and a hash of the
//! day says which is whose.

use std::collections::HashMap;

use redis::{RedisResult, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::{Counting, RedisLedger, parse};
use crate::analytics::{By, Daily, Day, Place};
use crate::redis::{Call, RECOUNT};
use crate::store::StoreError;
use crate::store::ledger::{Counted, Recount, Recounted};

/// People of a day are kept for so long, s; it is closed long before.
const PEOPLE_S: i64 = 40 * 24 * 3600;
/// A recount nobody goes on with is gone after this, s.
const RECOUNT_S: i64 = 3600;
/// Numbers read per round trip.
const NUMBERS: usize = 2_000;

/// Between a province and its city; neither can contain it.
const BETWEEN: char = '\u{1f}';

/// How a place is written in a hash.
fn name(by: By, place: &Place) -> String {
    match by {
        By::Province => format!("p:{}", place.province),
        By::City => format!("c:{}{BETWEEN}{}", place.province, place.city),
    }
}

/// Reads [`name`].
fn named(text: &str) -> Option<(By, Place)> {
    let owned = str::to_owned;
    if let Some(province) = text.strip_prefix("p:") {
        return Some((By::Province, Place { province: owned(province), city: String::new() }));
    }
    let (province, city) = text.strip_prefix("c:")?.split_once(BETWEEN)?;
    Some((By::City, Place { province: owned(province), city: owned(city) }))
}

fn hash(name: &str) -> String {
    format!("{:032x}", xxh3_128(name.as_bytes()))
}

/// What is kept of a day.
#[derive(Default)]
struct Kept {
    fields: HashMap<String, String>,
}

impl Kept {
    /// What is no place's.
    const OF_ALL: [&str; 3] = ["version", "total", "estimated"];

    /// What [`RedisLedger::kept_of`] asked for.
    fn read(reply: RedisResult<Value>, by: Option<By>) -> Result<Self, StoreError> {
        if by.is_some() {
            return Ok(Self { fields: parse(reply)? });
        }
        let values: Vec<Option<String>> = parse(reply)?;
        let there = |(field, value): (&str, Option<String>)| Some((field.to_owned(), value?));
        Ok(Self { fields: Self::OF_ALL.into_iter().zip(values).filter_map(there).collect() })
    }

    fn number(&self, field: &str) -> u64 {
        self.fields.get(field).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn is_closed(&self) -> bool {
        self.fields.contains_key("total")
    }
}

impl RedisLedger {
    fn of_day(&self, day: Day, part: &str) -> String {
        self.keys.census(&format!(".dau:{day}{part}"))
    }

    fn mode(&self) -> &'static str {
        if self.counting == Counting::Exact { "s" } else { "h" }
    }

    /// The same with the other way of counting.
    fn otherwise(&self) -> Self {
        let counting = match self.counting {
            Counting::Exact => Counting::Estimated,
            Counting::Estimated => Counting::Exact,
        };
        Self { counting, ..self.clone() }
    }

    /// Where the people are; of a recount beside those that count.
    fn people(&self, day: Day, recount: Option<u64>, place: &str) -> String {
        let mode = self.mode();
        match recount {
            None => self.of_day(day, &format!(":{mode}{place}")),
            Some(nonce) => self.of_day(day, &format!(":new:{nonce:016x}:{mode}{place}")),
        }
    }

    fn places(&self, day: Day, recount: Option<u64>) -> String {
        match recount {
            None => self.of_day(day, ":places"),
            Some(nonce) => self.of_day(day, &format!(":new:{nonce:016x}:places")),
        }
    }

    /// Idempotent.
    pub(super) fn counting_commands(&self, counted: &[Counted], recount: Option<u64>) -> Vec<redis::Cmd> {
        let mut people: HashMap<String, Vec<String>> = HashMap::new();
        let mut places: HashMap<String, HashMap<String, String>> = HashMap::new();
        for one in counted {
            let person = one.person.to_string();
            for (by, place) in one.groups() {
                let name = name(by, &place);
                let hash = hash(&name);
                people
                    .entry(self.people(one.day, recount, &format!(":{hash}")))
                    .or_default()
                    .push(person.clone());
                places.entry(self.places(one.day, recount)).or_default().insert(hash, name);
            }
            people.entry(self.people(one.day, recount, "")).or_default().push(person);
        }
        let life = if recount.is_some() { RECOUNT_S } else { PEOPLE_S };
        let add = if self.counting == Counting::Exact { "SADD" } else { "PFADD" };
        let mut commands = Vec::with_capacity(2 * (people.len() + places.len()));
        let mut expire = |key: &str, command: redis::Cmd| {
            let mut expire = redis::cmd("EXPIRE");
            expire.arg(key).arg(life);
            commands.extend([command, expire]);
        };
        for (key, people) in people {
            let mut command = redis::cmd(add);
            command.arg(&key).arg(people);
            expire(&key, command);
        }
        for (key, places) in places {
            let mut command = redis::cmd("HSET");
            command.arg(&key);
            for (hash, name) in places {
                command.arg(hash).arg(name);
            }
            expire(&key, command);
        }
        commands
    }

    pub(crate) async fn count(&self, counted: &[Counted]) -> Result<(), StoreError> {
        self.all(self.counting_commands(counted, None)).await
    }

    pub(crate) async fn recount(&self, recount: &Recount, counted: &[Counted]) -> Result<(), StoreError> {
        self.all(self.counting_commands(counted, Some(recount.nonce))).await
    }

    pub(crate) async fn finish_recount(&self, recount: &Recount) -> Result<Recounted, StoreError> {
        let (day, nonce) = (recount.day, Some(recount.nonce));
        let hashes = |key: String| {
            let mut keys = redis::cmd("HKEYS");
            keys.arg(key);
            keys
        };
        let asked = vec![hashes(self.places(day, nonce)), hashes(self.places(day, None))];
        let mut replies = self.ask(asked).await?.into_iter();
        let mut take = || parse::<Vec<String>>(replies.next().ok_or(StoreError::Unavailable)?);
        let (new, mut old) = (take()?, take()?);
        old.retain(|hash| !new.contains(hash));
        let mut keys = vec![self.of_day(day, ""), self.places(day, None), self.places(day, nonce)];
        let parts = std::iter::once(String::new()).chain(new.iter().map(|hash| format!(":{hash}")));
        for part in parts {
            keys.extend([self.people(day, nonce, &part), self.people(day, None, &part)]);
        }
        keys.extend(old.iter().map(|hash| self.people(day, None, &format!(":{hash}"))));
        let call = Call::new(&RECOUNT, &keys).arg(recount.version).arg(new.len() + 1).arg(PEOPLE_S);
        Ok(match self.one::<(u64, u64)>(call.into()).await? {
            (1, version) => Recounted::Done(version),
            (_, version) => Recounted::Stale(version),
        })
    }

    /// Asks for what is kept of a day: there may be many places.
    fn kept_of(&self, day: Day, by: Option<By>) -> redis::Cmd {
        let mut kept = redis::cmd(if by.is_some() { "HGETALL" } else { "HMGET" });
        kept.arg(self.of_day(day, ""));
        if by.is_none() {
            kept.arg(&Kept::OF_ALL);
        }
        kept
    }

    pub(crate) async fn days(&self, days: &[Day], by: Option<By>) -> Result<Vec<Daily>, StoreError> {
        let mut commands = Vec::with_capacity(days.len() * 2);
        for day in days {
            commands.extend([self.kept_of(*day, by), self.number_of(&self.people(*day, None, ""))]);
        }
        let mut replies = self.ask(commands).await?.into_iter();
        let mut next = || replies.next().ok_or(StoreError::Unavailable);
        let mut all = Vec::with_capacity(days.len());
        for day in days {
            let kept = Kept::read(next()?, by)?;
            let total: u64 = parse(next()?)?;
            let is_closed = kept.is_closed();
            let is_estimated = match is_closed {
                true => kept.fields.contains_key("estimated"),
                false => self.counting == Counting::Estimated,
            };
            let mut daily = Daily {
                total: if is_closed { kept.number("total") } else { total },
                places: Vec::new(),
                version: kept.number("version"),
                is_estimated,
            };
            if let Some(by) = by {
                daily.places = match is_closed {
                    true => kept_places(&kept, by),
                    false => self.open_places(*day, by).await?,
                };
                daily.places.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            }
            all.push(daily);
        }
        Ok(all)
    }

    async fn open_places(&self, day: Day, by: By) -> Result<Vec<(Place, u64)>, StoreError> {
        let mut names = redis::cmd("HGETALL");
        names.arg(self.places(day, None));
        let names: HashMap<String, String> = self.one(names).await?;
        let of_kind = names.into_iter().filter_map(|(hash, name)| {
            named(&name).filter(|(kind, _)| *kind == by).map(|(_, place)| (hash, place))
        });
        let of_kind: Vec<(String, Place)> = of_kind.collect();
        let mut places = Vec::with_capacity(of_kind.len());
        for part in of_kind.chunks(NUMBERS) {
            let number =
                |(hash, _): &(String, Place)| self.number_of(&self.people(day, None, &format!(":{hash}")));
            let replies = self.ask(part.iter().map(number).collect()).await?;
            for ((_, place), reply) in part.iter().zip(replies) {
                places.push((place.clone(), parse(reply)?));
            }
        }
        Ok(places)
    }

    fn number_of(&self, key: &str) -> redis::Cmd {
        let mut number = redis::cmd(if self.counting == Counting::Exact { "SCARD" } else { "PFCOUNT" });
        number.arg(key);
        number
    }

    pub(crate) async fn abandon_recount(&self, recount: &Recount) -> Result<(), StoreError> {
        let (day, nonce) = (recount.day, Some(recount.nonce));
        let hashes = self.hashes(day, nonce).await?;
        let mut keys = self.all_people(day, nonce, &hashes);
        keys.push(self.places(day, nonce));
        self.unlink(&keys).await
    }

    pub(crate) async fn counted_otherwise(&self, days: &[Day]) -> Result<Vec<Day>, StoreError> {
        let otherwise = self.otherwise();
        let exists = |day: &Day| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(otherwise.people(*day, None, ""));
            exists
        };
        let mut found = Vec::new();
        for (day, reply) in days.iter().zip(self.ask(days.iter().map(exists).collect()).await?) {
            if parse::<bool>(reply)? {
                found.push(*day);
            }
        }
        Ok(found)
    }

    pub(crate) async fn forget_otherwise(&self, day: Day) -> Result<(), StoreError> {
        let hashes = self.hashes(day, None).await?;
        self.unlink(&self.otherwise().all_people(day, None, &hashes)).await
    }

    pub(crate) async fn close_day(&self, day: Day) -> Result<(), StoreError> {
        let mut total = redis::cmd("HEXISTS");
        total.arg(self.of_day(day, "")).arg("total");
        // Its way may have been changed, and nobody there to count it anew.
        let other = self.otherwise();
        let number = |ledger: &Self| ledger.number_of(&ledger.people(day, None, ""));
        let mut replies = self.ask(vec![total, number(self), number(&other)]).await?.into_iter();
        let mut take = || parse::<u64>(replies.next().ok_or(StoreError::Unavailable)?);
        let (is_closed, people, otherwise) = (take()? > 0, take()?, take()?);
        if is_closed || people.max(otherwise) == 0 {
            return Ok(());
        }
        let counted = if otherwise > people { &other } else { self };
        let mut fields: Vec<(String, u64)> = Vec::new();
        for by in [By::Province, By::City] {
            let places = counted.open_places(day, by).await?;
            fields.extend(places.iter().map(|(place, count)| (name(by, place), *count)));
        }
        let total = counted.days(&[day], None).await?.pop().unwrap_or_default();
        if total.is_estimated {
            fields.push(("estimated".to_owned(), 1));
        }
        fields.push(("total".to_owned(), total.total));
        let key = self.of_day(day, "");
        let mut keep = redis::cmd("HSET");
        keep.arg(&key);
        for (field, number) in &fields {
            keep.arg(field).arg(number);
        }
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(self.keep_s);
        self.all(vec![keep, expire]).await?;
        // Only now: the numbers are kept.
        let hashes = self.hashes(day, None).await?;
        let mut keys = self.all_people(day, None, &hashes);
        keys.extend(other.all_people(day, None, &hashes));
        keys.push(self.places(day, None));
        self.unlink(&keys).await
    }

    /// The places of a day, or of a recount of it.
    async fn hashes(&self, day: Day, recount: Option<u64>) -> Result<Vec<String>, StoreError> {
        let mut hashes = redis::cmd("HKEYS");
        hashes.arg(self.places(day, recount));
        self.one(hashes).await
    }

    /// The keys of its people, with those of these places.
    fn all_people(&self, day: Day, recount: Option<u64>, hashes: &[String]) -> Vec<String> {
        let of = |part: &str| self.people(day, recount, part);
        std::iter::once(of("")).chain(hashes.iter().map(|hash| of(&format!(":{hash}")))).collect()
    }

    async fn unlink(&self, keys: &[String]) -> Result<(), StoreError> {
        let unlink = |keys: &[String]| {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys);
            unlink
        };
        self.all(keys.chunks(NUMBERS).map(unlink).collect()).await
    }

    /// One round trip of commands whose answers say nothing.
    async fn all(&self, commands: Vec<redis::Cmd>) -> Result<(), StoreError> {
        let replies = self.ask(commands).await?;
        replies.into_iter().try_for_each(|reply: RedisResult<Value>| parse::<Value>(reply).map(drop))
    }
}

fn kept_places(kept: &Kept, by: By) -> Vec<(Place, u64)> {
    let read = |(field, number): (&String, &String)| {
        let (kind, place) = named(field)?;
        (kind == by).then(|| Some((place, number.parse().ok()?)))?
    };
    kept.fields.iter().filter_map(read).collect()
}
