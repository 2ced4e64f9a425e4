//! The report for a terminal.

use std::fmt;

use super::{Ending, Figure, Report, Spread};
use crate::numbers::short;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.scenario)?;
        for (name, value) in &self.settings {
            writeln!(f, "  {name:<12} {value}")?;
        }
        let ratio = if self.other.is_empty() { "" } else { "ratio" };
        writeln!(f, "\n{:<34}{:>28}{:>28}{ratio:>9}", "figure", "gateway", self.other)?;
        for figure in &self.figures {
            line(f, figure)?;
        }
        if let Some(verdict) = &self.checked {
            write!(f, "\n{verdict}")?;
        }
        if !self.limits.is_empty() {
            writeln!(f)?;
        }
        for (limit, value) in &self.limits {
            let (word, found) = match value {
                Some(value) if limit.holds(*value) => ("holds", short(*value)),
                Some(value) => ("EXCEEDED", short(*value)),
                None => ("NOT MEASURED", "-".to_owned()),
            };
            writeln!(f, "{word:<13} {limit}  (is {found})")?;
        }
        for problem in &self.problems {
            writeln!(f, "BROKEN: {problem}")?;
        }
        for void in &self.void {
            writeln!(f, "VOID: {void}")?;
        }
        let ending = match self.ending() {
            Ending::Kept => "kept",
            Ending::Broken => "BROKEN",
            Ending::Void => "VOID: this run proves nothing",
        };
        writeln!(f, "\nverdict: {ending}")
    }
}

fn line(f: &mut fmt::Formatter<'_>, figure: &Figure) -> fmt::Result {
    let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let text = format!(
        "{:<34}{:>28}{:>28}{ratio:>9}",
        figure.name,
        spread(figure.gateway.as_ref()),
        spread(figure.other.as_ref())
    );
    writeln!(f, "{}", text.trim_end())
}

/// The median, and the range where there is one.
pub(super) fn spread(spread: Option<&Spread>) -> String {
    let Some(Spread { median, least, most }) = spread else { return String::new() };
    if (most - least).abs() <= f64::EPSILON {
        return short(*median);
    }
    format!("{} ({}-{})", short(*median), short(*least), short(*most))
}
