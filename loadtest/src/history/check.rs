//! The judgement of a run.

use std::sync::Arc;

use super::delivery::{self, Acked};
use super::ledger::Ledger;
use super::rules::{Rules, Verdict};
use super::truth::History;
use super::walk::{Walked, walk};

/// Judges a run.
#[must_use]
pub fn check(history: &History, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let mut ledger = Ledger::new(history, &mut verdict.violations);
    let walked: Vec<Walked<'_>> =
        history.clients.iter().map(|client| walk(client, &mut ledger, rules, &mut verdict)).collect();
    let mut acked = Acked::new();
    for told in walked.iter().flat_map(|client| &client.acked) {
        let first = acked.entry((Arc::clone(&told.conversation), Arc::clone(&told.id))).or_insert(told.at);
        *first = (*first).min(told.at);
    }
    delivery::judge(history, &ledger, &walked, &acked, rules.live_within, &mut verdict.violations);
    verdict.acked = acked.len();
    verdict.void = void(history, rules, verdict.acked);
    verdict
}

fn void(history: &History, rules: &Rules, acked: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if acked < rules.least_acked {
        reasons.push(format!("{acked} acked messages checked, at least {} are needed", rules.least_acked));
    }
    let met = |in_flight: &u64| *in_flight >= rules.least_in_flight;
    let injections: Vec<u64> = history.injections.iter().map(|injection| injection.in_flight).collect();
    let effective = injections.iter().filter(|in_flight| met(in_flight)).count();
    if effective < rules.least_injections {
        reasons.push(format!(
            "{effective} injections met {} sends in flight, at least {} are needed; in flight were {injections:?}",
            rules.least_in_flight, rules.least_injections
        ));
    }
    reasons
}
