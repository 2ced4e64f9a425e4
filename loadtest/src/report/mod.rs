//! What a run found: figures of both sides, limits, and a verdict.

mod chart;
mod html;
mod limit;
mod text;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(crate) use self::limit::Limit;
use crate::history::Verdict;
use crate::latency::Latencies;
use crate::numbers::median;
use crate::progress::Point;
use crate::round::Round;

/// One figure over all rounds: median and range, of the gateway and, where it
/// has the same, of what it is compared with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) gateway: Option<Spread>,
    pub(crate) other: Option<Spread>,
    /// Median of gateway / other, round by round.
    pub(crate) ratio: Option<f64>,
}

/// A median and its range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            median: median(values),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing was broken, and enough was seen to say so.
    Kept,
    /// Something was.
    Broken,
    /// The run proves nothing.
    Void,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) settings: Vec<(String, String)>,
    /// What the gateway is compared with; empty = nothing.
    pub(crate) other: &'static str,
    pub(crate) figures: Vec<Figure>,
    /// Side, name, all rounds together.
    pub(crate) latencies: Vec<(String, String, Latencies)>,
    pub(crate) points: Vec<(&'static str, Point)>,
    /// What should not have been.
    pub(crate) problems: Vec<String>,
    /// Why nothing is proved.
    pub(crate) void: Vec<String>,
    /// What the history checker says, of all rounds.
    pub(crate) checked: Option<Verdict>,
    pub(crate) limits: Vec<(Limit, Option<f64>)>,
}

impl Report {
    /// Of nothing yet.
    pub(crate) fn new(scenario: &str, settings: Vec<(String, String)>) -> Self {
        Self {
            scenario: scenario.to_owned(),
            settings,
            other: "",
            figures: Vec::new(),
            latencies: Vec::new(),
            points: Vec::new(),
            problems: Vec::new(),
            void: Vec::new(),
            checked: None,
            limits: Vec::new(),
        }
    }

    /// Takes the rounds of the gateway and, in the same order, of what it is
    /// compared with.
    pub(crate) fn take(&mut self, gateway: Vec<Round>, others: Vec<Round>, name: &'static str) {
        self.other = name;
        let mut names: Vec<String> = Vec::new();
        for (name, _) in gateway.iter().chain(&others).flat_map(|round| &round.figures) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        for name in names {
            let values = |rounds: &[Round]| -> Vec<f64> {
                rounds.iter().filter_map(|round| value(round, &name)).collect()
            };
            let pairs = gateway.iter().zip(&others);
            let ratios: Vec<f64> = pairs
                .filter_map(|(ours, least)| Some(value(ours, &name)? / value(least, &name)?))
                .filter(|ratio| ratio.is_finite())
                .collect();
            self.figures.push(Figure {
                gateway: Spread::of(&values(&gateway)),
                other: Spread::of(&values(&others)),
                ratio: (!ratios.is_empty()).then(|| median(&ratios)),
                name,
            });
        }
        for (side, rounds) in [("gateway", gateway), (self.other, others)] {
            for round in rounds {
                self.absorb(side, round);
            }
        }
    }

    fn absorb(&mut self, side: &str, round: Round) {
        for (name, latencies) in round.latencies {
            match self.latencies.iter_mut().find(|(of, known, _)| of == side && *known == name) {
                // Histograms of one program have one shape.
                Some((_, _, whole)) => drop(whole.add(&latencies)),
                None => self.latencies.push((side.to_owned(), name, latencies)),
            }
        }
        self.problems.extend(round.problems.into_iter().map(|problem| format!("{side}: {problem}")));
        if let Some(verdict) = round.verdict {
            self.judged(verdict);
        }
    }

    /// Takes what the history checker said of one round.
    pub(crate) fn judged(&mut self, verdict: Verdict) {
        let Some(whole) = &mut self.checked else {
            self.checked = Some(verdict);
            return;
        };
        whole.acked += verdict.acked;
        whole.received += verdict.received;
        whole.repeated += verdict.repeated;
        whole.announced += verdict.announced;
        whole.resyncs += verdict.resyncs;
        whole.disconnects += verdict.disconnects;
        whole.violations.extend(verdict.violations);
        whole.void.extend(verdict.void);
    }

    /// Holds the figures against limits.
    pub(crate) fn limit(&mut self, limits: &[Limit]) {
        for limit in limits {
            let found = self.figures.iter().find(|figure| figure.name == limit.figure);
            let value = found.and_then(|figure| limit.value(figure));
            if value.is_none() {
                self.void.push(format!("nothing to hold {limit} against"));
            }
            self.limits.push((limit.clone(), value));
        }
    }

    /// The verdict.
    pub(crate) fn ending(&self) -> Ending {
        let exceeded =
            self.limits.iter().any(|(limit, value)| value.is_some_and(|value| !limit.holds(value)));
        let violated = self.checked.as_ref().is_some_and(|verdict| !verdict.violations.is_empty());
        let unproved = self.checked.as_ref().is_some_and(|verdict| !verdict.void.is_empty());
        if exceeded || violated || !self.problems.is_empty() {
            Ending::Broken
        } else if unproved || !self.void.is_empty() {
            Ending::Void
        } else {
            Ending::Kept
        }
    }

    /// One page that needs nothing else.
    pub(crate) fn to_html(&self) -> String {
        html::page(self)
    }

    /// One object.
    pub(crate) fn to_json(&self) -> Value {
        let spread = |spread: &Option<Spread>| {
            spread.map(|spread| json!({"median": spread.median, "least": spread.least, "most": spread.most}))
        };
        let figures: BTreeMap<&str, Value> = self
            .figures
            .iter()
            .map(|figure| {
                let value = json!({
                    "gateway": spread(&figure.gateway),
                    "other": spread(&figure.other),
                    "ratio": figure.ratio,
                });
                (figure.name.as_str(), value)
            })
            .collect();
        let settings: BTreeMap<&str, &str> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let latency = |(side, name, latencies): &(String, String, Latencies)| json!({"side": side, "name": name, "count": latencies.count(), "us": latencies.curve()});
        let point = |(side, point): &(&str, Point)| {
            json!({
                "side": side, "atS": point.at, "what": point.what, "perSecond": point.rate, "p50Us": point.p50, "p99Us": point.p99,
                "cores": point.cores, "memoryBytes": point.memory,
            })
        };
        let limit = |(limit, value): &(Limit, Option<f64>)| {
            json!({
                "limit": limit.to_string(), "value": value,
                "holds": value.map(|value| limit.holds(value)),
            })
        };
        json!({
            "scenario": self.scenario,
            "comparedWith": (!self.other.is_empty()).then_some(self.other),
            "verdict": self.ending().word(),
            "settings": settings,
            "figures": figures,
            "latencies": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
            "limits": self.limits.iter().map(limit).collect::<Vec<_>>(),
            "problems": self.problems,
            "void": self.void,
            "checked": self.checked.as_ref().map(checked),
        })
    }
}

impl Ending {
    /// In a word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Void => "void",
        }
    }
}

fn value(round: &Round, name: &str) -> Option<f64> {
    round.figures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

fn checked(verdict: &Verdict) -> Value {
    json!({
        "acked": verdict.acked, "received": verdict.received, "repeated": verdict.repeated,
        "announcedLosses": verdict.announced, "resyncs": verdict.resyncs, "disconnects": verdict.disconnects,
        "violations": verdict.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "void": verdict.void,
    })
}
