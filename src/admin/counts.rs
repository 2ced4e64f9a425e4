//! How many came, and how many were online.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::AdminContext;
use super::problem::{Asked, Body as Arrived, Problem, asked, parse_or_default};
use crate::analytics::{self, By, Daily, Day, ESTIMATE_ERROR, Span};
use crate::census::RecalculateError;
use crate::types::unix_ms;

/// Most days of one answer.
const MOST_DAYS: i64 = 400;
/// Most days that are also divided by places.
const MOST_DIVIDED: i64 = 31;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Days {
    from: Option<String>,
    to: Option<String>,
    by: Option<Divided>,
}

/// What the numbers are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Divided {
    Province,
    City,
}

impl From<Divided> for By {
    fn from(by: Divided) -> Self {
        match by {
            Divided::Province => Self::Province,
            Divided::City => Self::City,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    from: String,
    to: Option<String>,
    step: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Recalculate {
    /// The version that is to be replaced.
    version: Option<u64>,
}

fn parse_day(field: &str, text: &str) -> Result<Day, Problem> {
    Day::parse(text).map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

/// The numbers of days; without `from`, of today.
pub(super) async fn dau(
    State(context): State<Arc<AdminContext>>,
    query: Asked<Days>,
) -> Result<Json<Value>, Problem> {
    let wanted = asked(query)?;
    let census = context.census()?;
    let today = census.zone().day(unix_ms());
    let day = |field, text: Option<&String>| text.map(|text| parse_day(field, text)).transpose();
    let to = day("to", wanted.to.as_ref())?;
    let from = day("from", wanted.from.as_ref())?.or(to).unwrap_or(today);
    let to = to.unwrap_or(today);
    let count = from.until(to).saturating_add(1);
    if count < 1 {
        return Err(Problem::invalid(format!("from: {from} is after to, {to}")));
    }
    let most = if wanted.by.is_some() { MOST_DIVIDED } else { MOST_DAYS };
    if count > most {
        let what = if wanted.by.is_some() { " with by" } else { "" };
        return Err(Problem::invalid(format!("from and to: {count} days; at most {most}{what}")));
    }
    let days: Vec<Day> = (0..count).map(|n| from.plus(n)).collect();
    let numbers = census.days(&days, wanted.by.map(By::from)).await?;
    let told = days.iter().zip(&numbers).map(|(day, daily)| told(*day, daily, wanted.by));
    let days: Vec<Value> = told.collect();
    Ok(Json(json!({ "timeZone": census.zone().name(), "days": days })))
}

/// One day. `error` is the relative standard error of its numbers, where they
/// are estimates.
fn told(day: Day, daily: &Daily, by: Option<Divided>) -> Value {
    let mut told = Map::new();
    told.insert("day".to_owned(), json!(day.to_string()));
    told.insert("dau".to_owned(), json!(daily.total));
    told.insert("version".to_owned(), json!(daily.version));
    if daily.is_estimated {
        told.insert("error".to_owned(), json!(ESTIMATE_ERROR));
    }
    if let Some(by) = by {
        let place = |(place, count): &(analytics::Place, u64)| match by {
            Divided::Province => json!({ "province": place.province, "dau": count }),
            Divided::City => json!({ "province": place.province, "city": place.city, "dau": count }),
        };
        told.insert("by".to_owned(), daily.places.iter().map(place).collect());
    }
    Value::Object(told)
}

/// Counts a past day anew, from the log.
pub(super) async fn recalculate(
    State(context): State<Arc<AdminContext>>,
    Path(day): Path<String>,
    body: Arrived,
) -> Result<Json<Value>, Problem> {
    let day = parse_day("day", &day)?;
    let Recalculate { version } = parse_or_default(body)?;
    match context.census()?.recalculate(day, version, unix_ms()).await {
        Ok(daily) => Ok(Json(told(day, &daily, None))),
        Err(error @ RecalculateError::NotPast) => Err(Problem::invalid(format!("day: {error}"))),
        Err(error @ RecalculateError::Gone) => Err(Problem::new(StatusCode::GONE, error.to_string())),
        Err(RecalculateError::Stale(now)) => {
            let error = RecalculateError::Stale(now).to_string();
            Err(Problem::new(StatusCode::CONFLICT, error).with("version", now.into()))
        }
        Err(RecalculateError::Store(error)) => Err(error.into()),
    }
}

fn parse_instant(field: &str, text: &str) -> Result<i64, Problem> {
    let at = text.parse().ok().or_else(|| analytics::instant(text)).filter(|at| *at >= 0);
    at.ok_or_else(|| {
        // In a query a bare + is a space.
        let form = "must be unix ms, or RFC 3339, e.g. 2026-11-21T10:00:00Z or 2026-11-21T10:00:00%2B08:00";
        Problem::invalid(format!("{field}: {form}, not before 1970"))
    })
}

/// How many were online, in steps.
pub(super) async fn online_history(
    State(context): State<Arc<AdminContext>>,
    query: Asked<Wanted>,
) -> Result<Json<Value>, Problem> {
    let wanted = asked(query)?;
    let census = context.census()?;
    let from = parse_instant("from", &wanted.from)?;
    let to = wanted.to.map_or_else(|| Ok(unix_ms()), |to| parse_instant("to", &to))?;
    let step = match &wanted.step {
        None => census.every(),
        Some(step) => humantime::parse_duration(step)
            .ok()
            .and_then(|step: Duration| i64::try_from(step.as_millis()).ok())
            .ok_or_else(|| Problem::invalid("step: must be a time with its unit, e.g. 60s, 5m, 1h"))?,
    };
    let span =
        Span::new(from, to, step, census.every()).map_err(|error| Problem::invalid(error.to_string()))?;
    let history = census.history(span).await?;
    let point = |step: &analytics::Step| match step.samples {
        0 => json!({ "ts": step.at, "samples": 0, "min": null, "avg": null, "max": null }),
        samples => {
            json!({ "ts": step.at, "samples": samples, "min": step.min, "avg": step.avg, "max": step.max })
        }
    };
    Ok(Json(json!({
        "from": span.from,
        "to": span.to,
        "stepMs": span.step,
        "points": history.steps.iter().map(point).collect::<Vec<_>>(),
        "peak": history.peak.map(|peak| json!({ "ts": peak.at, "online": peak.online })),
    })))
}
