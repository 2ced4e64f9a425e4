//! What an application reports, validated field by field.
//!
//! | field | what |
//! |---|---|
//! | `installId` | 8-64 of `[A-Za-z0-9_-]` |
//! | `eventName` | a letter, then up to 63 of `[A-Za-z0-9_]` |
//! | `eventTime` | unix ms, or RFC 3339; at most 7 days ago and 5 minutes ahead |
//! | `properties` | optional: a JSON object of at most 8 KiB, as it is written |
//! | `eventId` | optional: 1-64 visible ASCII characters |
//! | `userId` | optional: a positive integer |
//! | `client` | optional: an object of texts; `province` and `city` are used |

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::day::instant;
use super::{Entry, InstallId, Place};
use crate::types::{EventField, UserId};

/// Oldest event, ms; for as long an id is remembered at least.
pub(crate) const PAST_MS: i64 = 7 * 24 * 3_600_000;
/// How far a client's clock may be ahead, ms.
const AHEAD_MS: i64 = 5 * 60_000;
/// Longest text of the properties, bytes.
const PROPERTIES: usize = 8 * 1024;
/// Longest name of a field that is told back, bytes.
const ECHO: usize = 64;

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct Refusal {
    /// The kind of fault.
    pub kind: EventField,
    /// The field's name, as it was written.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Refusal {
    fn new(kind: EventField, field: &str, reason: impl fmt::Display) -> Self {
        Self { kind, field: field.to_owned(), reason: reason.to_string() }
    }
}

/// One event, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    install: InstallId,
    name: String,
    at: i64,
    properties: String,
    id: String,
    user: Option<UserId>,
    place: Place,
}

impl Event {
    /// Reads one event of JSON; `now` is unix ms.
    pub(crate) fn parse(json: &str, now: i64) -> Result<Self, Refusal> {
        use EventField as Kind;
        let fields: Fields<'_> = serde_json::from_str(json)
            .map_err(|_| Refusal::new(Kind::Event, "event", "must be a JSON object"))?;
        if let Some(twice) = fields.twice {
            return Err(Refusal::new(Kind::Event, &twice, "is there twice"));
        }
        if let Some(unknown) = fields.unknown {
            return Err(Refusal::new(Kind::Event, &unknown, "there is no such field"));
        }
        let install: String = needed(fields.install, Kind::InstallId, "installId", "a string")?;
        let install =
            InstallId::new(&install).map_err(|error| Refusal::new(Kind::InstallId, "installId", error))?;
        let name: String = needed(fields.name, Kind::EventName, "eventName", "a string")?;
        if !is_event_name(&name) {
            let reason = "must be a letter and up to 63 of [A-Za-z0-9_]";
            return Err(Refusal::new(Kind::EventName, "eventName", reason));
        }
        let at = event_time(fields.time, now)?;
        let id: String = optional(fields.id, Kind::EventId, "eventId", "a string")?.unwrap_or_default();
        if fields.id.is_some_and(is_given) && !is_event_id(&id) {
            return Err(Refusal::new(Kind::EventId, "eventId", "must be 1-64 visible ASCII characters"));
        }
        let user: Option<i64> = optional(fields.user, Kind::UserId, "userId", "a positive integer")?;
        let user = user.map(UserId::new).transpose();
        let user = user.map_err(|error| Refusal::new(Kind::UserId, "userId", error))?;
        let client: Option<HashMap<String, String>> =
            optional(fields.client, Kind::Client, "client", "an object of strings")?;
        let client = client.unwrap_or_default();
        let named = |key: &str| client.get(key).map(String::as_str);
        let place = Place::named(named("province"), named("city"));
        Ok(Self { install, name, at, properties: properties(fields.properties)?, id, user, place })
    }

    /// As the log keeps it.
    #[must_use]
    pub(crate) fn into_entry(self, received_at: i64) -> Entry {
        let Self { install, name, at, properties, id, user, place } = self;
        Entry { name, user, install: Some(install), at, received_at, id, place, properties }
    }
}

fn is_event_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_event_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

fn is_given(raw: &RawValue) -> bool {
    raw.get() != "null"
}

fn optional<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    kind: EventField,
    field: &str,
    what: &str,
) -> Result<Option<T>, Refusal> {
    let Some(raw) = raw.filter(|raw| is_given(raw)) else { return Ok(None) };
    let read = serde_json::from_str(raw.get());
    read.map(Some).map_err(|_| Refusal::new(kind, field, format!("must be {what}")))
}

fn needed<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    kind: EventField,
    field: &str,
    what: &str,
) -> Result<T, Refusal> {
    optional(raw, kind, field, what)?.ok_or_else(|| Refusal::new(kind, field, format!("is missing: {what}")))
}

fn event_time(raw: Option<&RawValue>, now: i64) -> Result<i64, Refusal> {
    let fault = |reason: &str| Refusal::new(EventField::EventTime, "eventTime", reason);
    let Some(raw) = raw.filter(|raw| is_given(raw)) else {
        return Err(fault("is missing: unix ms, or a text by RFC 3339"));
    };
    let wrong = || fault("must be unix ms, an integer, or a text by RFC 3339, e.g. 2026-11-21T10:00:00Z");
    let at = match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => instant(&text),
        Err(_) => serde_json::from_str::<i64>(raw.get()).ok(),
    };
    let at = at.ok_or_else(wrong)?;
    if now.saturating_sub(at) > PAST_MS {
        return Err(fault("is more than 7 days ago"));
    }
    if at.saturating_sub(now) > AHEAD_MS {
        return Err(fault("is more than 5 minutes ahead"));
    }
    Ok(at)
}

/// The text is kept as it is: numbers of any size stay what they are.
fn properties(raw: Option<&RawValue>) -> Result<String, Refusal> {
    let fault = |reason: &str| Refusal::new(EventField::Properties, "properties", reason);
    let Some(raw) = raw.filter(|raw| is_given(raw)) else { return Ok(String::new()) };
    let text = raw.get();
    if !text.starts_with('{') {
        return Err(fault("must be a JSON object"));
    }
    if text.len() > PROPERTIES {
        return Err(fault("is longer than 8192 bytes"));
    }
    // Readers of the log need not cope with any depth; 127 levels are allowed.
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) if error.to_string().contains("recursion limit") => Err(fault("is nested too deeply")),
        Err(_) => Err(fault("must be a JSON object of texts that are Unicode and numbers that are finite")),
    }
}

/// The fields as they are written; no value was looked at.
#[derive(Default)]
struct Fields<'a> {
    install: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    properties: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    client: Option<&'a RawValue>,
    /// The first of each.
    unknown: Option<String>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let place = match &*key {
                        "installId" => &mut fields.install,
                        "eventName" => &mut fields.name,
                        "eventTime" => &mut fields.time,
                        "properties" => &mut fields.properties,
                        "eventId" => &mut fields.id,
                        "userId" => &mut fields.user,
                        "client" => &mut fields.client,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            fields.unknown.get_or_insert_with(|| key.chars().take(ECHO).collect());
                            continue;
                        }
                    };
                    let value = map.next_value()?;
                    if place.replace(value).is_some() {
                        fields.twice.get_or_insert_with(|| key.into_owned());
                    }
                }
                Ok(fields)
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Err(E::custom("null"))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn good() -> Value {
        json!({"installId": "install-1", "eventName": "app_open", "eventTime": NOW})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut event = good();
        event[field] = value;
        event
    }

    fn parse(event: &Value) -> Result<Event, Refusal> {
        Event::parse(&event.to_string(), NOW)
    }

    fn refused(event: &Value) -> (EventField, String) {
        let refusal = parse(event).expect_err(&event.to_string());
        (refusal.kind, refusal.field)
    }

    #[test]
    fn a_whole_event_is_kept_as_it_is_sent() {
        let text = format!(
            r#"{{"installId":"inst_-09","eventName":"Z9_","eventTime":{NOW},"eventId":"e:1","userId":42,
            "properties": {{ "n": 12345678901234567890123, "t": "\u00fc" }},
            "client": {{"province": "Guangdong", "city": "Shenzhen", "platform": "ios"}}}}"#
        );
        let entry = Event::parse(&text, NOW).unwrap().into_entry(NOW + 1);
        assert_eq!(entry.properties, r#"{ "n": 12345678901234567890123, "t": "\u00fc" }"#);
        assert_eq!((entry.name.as_str(), entry.at, entry.received_at), ("Z9_", NOW, NOW + 1));
        assert_eq!((entry.place.province.as_str(), entry.place.city.as_str()), ("Guangdong", "Shenzhen"));
        assert_eq!(entry.person().unwrap().to_string(), "u42");
        assert!(entry.key().is_some());
        let plain = parse(&good()).unwrap().into_entry(NOW);
        assert_eq!((plain.person().unwrap().to_string().as_str(), plain.key()), ("iinstall-1", None));
        for field in ["properties", "eventId", "userId", "client"] {
            assert_eq!(parse(&with(field, Value::Null)), parse(&good()), "{field}");
        }
    }

    #[test]
    fn each_fault_is_named_by_its_field() {
        use EventField as Kind;
        let cases = [
            ("installId", json!("short"), Kind::InstallId),
            ("installId", json!("x".repeat(65)), Kind::InstallId),
            ("installId", json!("with space"), Kind::InstallId),
            ("installId", json!(12345678), Kind::InstallId),
            ("installId", Value::Null, Kind::InstallId),
            ("eventName", json!(""), Kind::EventName),
            ("eventName", json!("9a"), Kind::EventName),
            ("eventName", json!("$seen"), Kind::EventName),
            ("eventName", json!("a".repeat(65)), Kind::EventName),
            ("eventName", json!("a-b"), Kind::EventName),
            ("eventTime", Value::Null, Kind::EventTime),
            ("eventTime", json!(NOW - PAST_MS - 1), Kind::EventTime),
            ("eventTime", json!(NOW + AHEAD_MS + 1), Kind::EventTime),
            ("eventTime", json!(1.5), Kind::EventTime),
            ("eventTime", json!("yesterday"), Kind::EventTime),
            ("eventTime", json!(NOW.to_string()), Kind::EventTime),
            ("properties", json!([1]), Kind::Properties),
            ("properties", json!("{}"), Kind::Properties),
            ("properties", json!({"a": "x".repeat(8_200)}), Kind::Properties),
            ("eventId", json!(""), Kind::EventId),
            ("eventId", json!("é"), Kind::EventId),
            ("eventId", json!("x".repeat(65)), Kind::EventId),
            ("eventId", json!(1), Kind::EventId),
            ("userId", json!(0), Kind::UserId),
            ("userId", json!("42"), Kind::UserId),
            ("userId", json!(1.0e30), Kind::UserId),
            ("client", json!([]), Kind::Client),
            ("client", json!({"city": 1}), Kind::Client),
            ("eventname", json!("a"), Kind::Event),
        ];
        for (field, value, kind) in cases {
            assert_eq!(refused(&with(field, value.clone())), (kind, field.to_owned()), "{value}");
        }
        for whole in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(refused(&whole), (Kind::Event, "event".to_owned()), "{whole}");
        }
        let twice = r#"{"installId":"install-1","installId":"install-2"}"#;
        assert_eq!(Event::parse(twice, NOW).unwrap_err().to_string(), "installId: is there twice");
        assert!(Event::parse("{}", NOW).unwrap_err().reason.contains("is missing"));
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        for at in [NOW - PAST_MS, NOW + AHEAD_MS] {
            assert!(parse(&with("eventTime", json!(at))).is_ok());
        }
        let by_text = parse(&with("eventTime", json!("2026-11-18T18:26:40+08:00"))).unwrap();
        assert_eq!(by_text.at, instant("2026-11-18T10:26:40Z").unwrap());
        let filled = json!({"a": "x".repeat(PROPERTIES - 8)});
        assert_eq!(filled.to_string().len(), PROPERTIES);
        assert!(parse(&with("properties", filled)).is_ok());
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let event = |properties: &str| {
            format!(
                r#"{{"installId":"install-1","eventName":"a","eventTime":{NOW},"properties":{properties}}}"#
            )
        };
        assert!(Event::parse(&event(&nested(100)), NOW).is_ok());
        assert_eq!(Event::parse(&event(&nested(1_000)), NOW).unwrap_err().reason, "is nested too deeply");
        for hostile in [r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#] {
            assert_eq!(Event::parse(&event(hostile), NOW).unwrap_err().kind, EventField::Properties);
        }
    }

    proptest! {
        /// Whatever is good by the words of the table is taken, and nothing else.
        #[test]
        fn names_and_ids_are_what_the_table_says(
            install in "[ -~é]{0,70}", name in "[ -~é]{0,70}", id in "[ -~é]{0,70}",
            at in NOW - 2 * PAST_MS..NOW + PAST_MS, user in proptest::num::i64::ANY,
        ) {
            let event = json!({"installId": install, "eventName": name, "eventTime": at, "eventId": id, "userId": user});
            let word = |text: &str, extra: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
            let is_good = (8..=64).contains(&install.len()) && word(&install, "_-")
                && name.len() <= 64 && word(&name, "_") && name.starts_with(|c: char| c.is_ascii_alphabetic())
                && (1..=64).contains(&id.len()) && id.chars().all(|c| ('!'..='~').contains(&c))
                && (NOW - PAST_MS..=NOW + AHEAD_MS).contains(&at) && user > 0;
            prop_assert_eq!(parse(&event).is_ok(), is_good);
        }

        #[test]
        fn good_events_are_taken(
            install in "[A-Za-z0-9_-]{8,64}", name in "[A-Za-z][A-Za-z0-9_]{0,63}", id in "[!-~]{1,64}",
            at in NOW - PAST_MS..=NOW + AHEAD_MS, user in 1_i64..,
        ) {
            let event = json!({"installId": install, "eventName": name, "eventTime": at, "eventId": id, "userId": user});
            let entry = parse(&event).unwrap().into_entry(NOW);
            prop_assert_eq!((entry.at, entry.id, entry.name), (at, id, name));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Event::parse(&text, NOW);
        }

        #[test]
        fn no_json_makes_it_panic(text in r#"[{}\[\]",:0-9a-zA-Z\\ .-]{0,80}"#) {
            let _ = Event::parse(&text, NOW);
            let _ = Event::parse(&format!(r#"{{"installId":{text}}}"#), NOW);
        }
    }
}
