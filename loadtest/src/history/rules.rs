//! What a run must have been like, and what is said about it.

use std::fmt;
use std::time::Duration;

use super::violation::Violation;

/// Most violations that are printed.
const PRINTED: usize = 12;

/// What is asked of a run beyond the promise itself.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Acknowledged messages that must have been checked, or the run is void.
    pub least_acked: usize,
    /// Injections that must have met …
    pub least_injections: usize,
    /// … at least so many sends in flight each, or the run is void.
    pub least_in_flight: u64,
    /// Whether the store may lose what it acknowledged at level 1, as long as
    /// it says so.
    pub may_lose: bool,
    /// Longest time from an ack to the message's arrival at a client that was
    /// connected throughout; `None` = not judged.
    pub live_within: Option<Duration>,
}

impl Default for Rules {
    /// Nothing may be lost; no run is void.
    fn default() -> Self {
        Self { least_acked: 0, least_injections: 0, least_in_flight: 0, may_lose: false, live_within: None }
    }
}

/// The judgement, and what it rests on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Different messages acknowledged as stored, all of them checked.
    pub acked: usize,
    /// Messages held against the final log, per client.
    pub received: usize,
    /// Of those, known already: allowed.
    pub repeated: usize,
    /// Acknowledged and gone, and whoever knew of them was told.
    pub announced: usize,
    /// RESYNCs told.
    pub resyncs: usize,
    /// Connections lost.
    pub disconnects: usize,
    /// What was not kept.
    pub violations: Vec<Violation>,
    /// Why the run proves nothing.
    pub void: Vec<String>,
}

impl Verdict {
    /// Whether the run proves that the promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.violations.is_empty() && self.void.is_empty()
    }

    /// How many violations have this label.
    #[must_use]
    pub fn count(&self, label: &str) -> usize {
        self.violations.iter().filter(|violation| violation.label() == label).count()
    }

    /// Different labels of the violations, with their counts.
    #[must_use]
    pub fn labels(&self) -> Vec<(&'static str, usize)> {
        let mut labels: Vec<(&'static str, usize)> = Vec::new();
        for violation in &self.violations {
            match labels.iter_mut().find(|(label, _)| *label == violation.label()) {
                Some((_, count)) => *count += 1,
                None => labels.push((violation.label(), 1)),
            }
        }
        labels
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "checked {} acked messages, {} receptions ({} repeated), {} announced losses, {} resyncs, {} disconnects",
            self.acked, self.received, self.repeated, self.announced, self.resyncs, self.disconnects
        )?;
        for void in &self.void {
            writeln!(f, "VOID: {void}")?;
        }
        for (label, count) in self.labels() {
            writeln!(f, "VIOLATED {count} x {label}")?;
        }
        for violation in self.violations.iter().take(PRINTED) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > PRINTED {
            writeln!(f, "  and {} more", self.violations.len() - PRINTED)?;
        }
        if self.is_kept() {
            writeln!(f, "kept: nothing lost, nothing twice, nothing out of order")?;
        }
        Ok(())
    }
}
