//! Events that applications report.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::AdminContext;
use super::problem::{Asked, Body as Arrived, Problem, asked, parse_borrowed};
use crate::analytics::Event;
use crate::store::StoreError;
use crate::telemetry::{EventRefusal, metrics};
use crate::types::unix_ms;

/// Most events of one call.
const MOST: usize = 1_000;
/// Largest body: that many events with 8 KiB of properties and 1 KiB of the
/// rest each.
pub(super) const MAX_BODY: usize = MOST * 9 * 1024;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Wanted {
    mode: Mode,
}

/// What one bad event costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Itself.
    #[default]
    Partial,
    /// The whole call.
    Strict,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    events: Events<'a>,
}

/// As they are written, and not more than are taken.
#[derive(Debug)]
struct Events<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Events<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Events<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of 1-1000 events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut events = Vec::new();
                while let Some(event) = list.next_element()? {
                    if events.len() == MOST {
                        return Err(A::Error::custom("events: more than 1000"));
                    }
                    events.push(event);
                }
                if events.is_empty() { Err(A::Error::custom("events: none")) } else { Ok(Events(events)) }
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Takes events; those that are accepted are durable when it answers.
pub(super) async fn events(
    State(context): State<Arc<AdminContext>>,
    query: Asked<Wanted>,
    body: Arrived,
) -> Result<Json<Value>, Problem> {
    let mode = asked(query)?.mode;
    let census = context.census()?;
    let now = unix_ms();
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    {
        let body = body.map_err(Problem::from)?;
        let body: Body<'_> = parse_borrowed(&body)?;
        for (index, event) in body.events.0.iter().enumerate() {
            match Event::parse(event.get(), now) {
                Ok(event) => good.push(event),
                Err(why) => {
                    metrics().census.refused(EventRefusal::Field(why.kind), 1);
                    refused.push(json!({ "index": index, "field": why.field, "reason": why.reason }));
                }
            }
        }
    }
    let count = u64::try_from(good.len()).unwrap_or(0);
    if mode == Mode::Strict
        && let Some(first) = refused.first()
    {
        metrics().census.refused(EventRefusal::Strict, count);
        let text = |field: &str| first[field].as_str().unwrap_or_default().to_owned();
        let detail = format!("events[{}].{}: {}", first["index"], text("field"), text("reason"));
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail).with("refused", refused.into()));
    }
    let recorded = match good.is_empty() {
        true => Ok(Default::default()),
        false => census.report(good, now).await,
    };
    let recorded = recorded.inspect_err(|_: &StoreError| {
        metrics().census.refused(EventRefusal::Unavailable, count);
    })?;
    Ok(Json(json!({
        "accepted": recorded.accepted,
        "duplicates": recorded.duplicates,
        "refused": refused,
    })))
}
