//! The report as one page: nothing is loaded from anywhere.

use std::fmt::Write as _;

use super::chart::{Chart, Line, escape};
use super::text::spread;
use super::{Ending, Limit, Report};
use crate::numbers::{float, short};
use crate::progress::{OPENED, Point};

/// Points of one side further apart than this many seconds belong to
/// different rounds.
const GAP: f64 = 2.5;

/// What of a second is drawn.
type Part = fn(&Point) -> Option<f64>;

const GATEWAY: &str = "gateway";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let ending = report.ending();
    let word = match ending {
        Ending::Void => "void: proves nothing",
        Ending::Kept | Ending::Broken => ending.word(),
    };
    let title = escape(&report.scenario);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}: {word}</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <header><h1>Load test: {title}</h1><span class=\"verdict {}\">{word}</span></header>\n<dl>\n",
        include_str!("style.css"),
        ending.word()
    );
    for (name, value) in &report.settings {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    }
    out.push_str("</dl>\n");
    findings(report, &mut out);
    let charts: String = charts(report).iter().map(Chart::to_html).collect();
    if !charts.is_empty() {
        let _ =
            write!(out, "<h2>Over time, and by percentile</h2>\n<div class=\"charts\">\n{charts}</div>\n");
    }
    figures(report, &mut out);
    out.push_str("</body>\n</html>\n");
    out
}

fn findings(report: &Report, out: &mut String) {
    if let Some(checked) = &report.checked {
        let _ = writeln!(
            out,
            "<h2>History checker</h2>\n<div class=\"table\"><pre>{}</pre></div>",
            escape(&checked.to_string())
        );
    }
    if !report.limits.is_empty() {
        out.push_str(
            "<h2>Limits</h2>\n<div class=\"table\"><table>\n<tr><th>limit</th><th>is</th><th></th></tr>\n",
        );
        for (limit, value) in &report.limits {
            out.push_str(&limited(limit, *value));
        }
        out.push_str("</table></div>\n");
    }
    for (class, heading, all) in [("broken", "Broken", &report.problems), ("void", "Void", &report.void)] {
        if all.is_empty() {
            continue;
        }
        let _ = write!(out, "<h2>{heading}</h2>\n<ul class=\"{class}\">\n");
        for one in all {
            let _ = writeln!(out, "<li>{}</li>", escape(one));
        }
        out.push_str("</ul>\n");
    }
}

fn limited(limit: &Limit, value: Option<f64>) -> String {
    let (class, word) = match value {
        Some(value) if limit.holds(value) => ("kept", "holds"),
        Some(_) => ("broken", "exceeded"),
        None => ("void", "not measured"),
    };
    let is = value.map(short).unwrap_or_default();
    format!(
        "<tr><td>{}</td><td>{is}</td><td class=\"{class}\">{word}</td></tr>\n",
        escape(&limit.to_string())
    )
}

fn figures(report: &Report, out: &mut String) {
    let compared = !report.other.is_empty();
    out.push_str(
        "<h2>Figures</h2>\n<div class=\"table\"><table>\n<tr><th>median (range)</th><th>gateway</th>",
    );
    if compared {
        let _ = write!(out, "<th>{}</th><th>ratio</th>", escape(report.other));
    }
    out.push_str("</tr>\n");
    for figure in &report.figures {
        let _ =
            write!(out, "<tr><td>{}</td><td>{}</td>", escape(&figure.name), spread(figure.gateway.as_ref()));
        if compared {
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let _ = write!(out, "<td>{}</td><td>{ratio}</td>", spread(figure.other.as_ref()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn charts(report: &Report) -> Vec<Chart> {
    let over_time = |title: &str, unit, parts: &[(&str, Part)]| Chart {
        title: title.to_owned(),
        unit,
        across: "seconds",
        lines: parts
            .iter()
            .enumerate()
            .flat_map(|(number, part)| {
                sides(report)
                    .into_iter()
                    .map(move |side| Line { colour: colour(side, number), ..line(report, side, part) })
            })
            .collect(),
        marks: Vec::new(),
    };
    vec![
        over_time("Rate", "per second", &[("", |point| (point.what != OPENED).then_some(point.rate))]),
        over_time(
            "Latency",
            "ms",
            &[("p50", |point| milliseconds(point.p50)), ("p99", |point| milliseconds(point.p99))],
        ),
        percentiles(report),
        over_time("Memory of the server", "MiB", &[("", |point| Some(float(point.memory) / 1_048_576.0))]),
        over_time("CPU of the server", "cores", &[("", |point| Some(point.cores))]),
    ]
}

/// Nothing where nothing was measured.
fn milliseconds(us: u64) -> Option<f64> {
    (us > 0).then(|| float(us) / 1e3)
}

/// The same one for a side in every chart.
fn colour(side: &str, part: usize) -> usize {
    2 * part + usize::from(side != GATEWAY)
}

/// The gateway comes first.
fn sides(report: &Report) -> Vec<&str> {
    let mut sides = vec![GATEWAY];
    if !report.other.is_empty() {
        sides.push(report.other);
    }
    sides
}

fn line(report: &Report, side: &str, (label, value): &(&str, Part)) -> Line {
    let own = report.points.iter().filter(|(of, _)| *of == side);
    Line {
        label: format!("{side} {label}").trim().to_owned(),
        points: own.filter_map(|(_, point)| Some((point.at, value(point)?))).collect(),
        gap: GAP,
        colour: 0,
    }
}

/// Each percentile is as far from the next as any other: the tail is what one
/// looks at.
fn percentiles(report: &Report) -> Chart {
    let (mut marks, mut lines, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (side, name, latencies) in &report.latencies {
        let curve = latencies.curve();
        let places = (0_u32..).map(f64::from);
        marks = places.clone().zip(&curve).map(|(x, (percent, _))| (x, format!("{percent}"))).collect();
        let points = places.zip(&curve).map(|(x, (_, us))| (x, float(*us) / 1e3)).collect();
        let known = names.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            names.push(name.clone());
            names.len() - 1
        });
        lines.push(Line { label: format!("{side} {name}"), points, gap: 1.5, colour: colour(side, number) });
    }
    Chart { title: "Percentiles".to_owned(), unit: "ms", across: "percentile", lines, marks }
}
