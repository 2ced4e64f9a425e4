//! Line charts as SVG, without a script and without anything from elsewhere.

use std::fmt::Write as _;

use crate::numbers::short;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 32.0;
/// Lines across the chart.
const GRID: u32 = 4;

/// One chart.
#[derive(Debug, Default)]
pub(super) struct Chart {
    pub(super) title: String,
    /// Of the values.
    pub(super) unit: &'static str,
    /// Below the chart.
    pub(super) across: &'static str,
    pub(super) lines: Vec<Line>,
    /// Places across that are named; none = evenly spaced numbers.
    pub(super) marks: Vec<(f64, String)>,
}

/// One line of it.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Two neighbours further apart than this are not connected.
    pub(super) gap: f64,
    /// Its number in the style sheet.
    pub(super) colour: usize,
}

/// From values to places.
struct Scale {
    from: f64,
    to: f64,
    most: f64,
}

impl Scale {
    fn of(lines: &[Line]) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let from = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let to = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
        let most = points().map(|(_, y)| *y).fold(0.0, f64::max);
        Self { from, to: to.max(from + 1e-9), most: round_up(most) }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.most * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// A figure with its legend; nothing where there is nothing to show.
    pub(super) fn to_html(&self) -> String {
        if self.lines.iter().all(|line| line.points.len() < 2) {
            return String::new();
        }
        let scale = Scale::of(&self.lines);
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<figure><figcaption>{} <span>{}</span></figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title),
            escape(self.unit),
            escape(&self.title)
        );
        self.axes(&scale, &mut svg);
        for line in &self.lines {
            draw(line, self.unit, &scale, &mut svg);
        }
        svg.push_str("</svg>\n<ul class=\"legend\">");
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let _ = write!(svg, "<li class=\"c{}\">{}</li>", line.colour % COLOURS, escape(&line.label));
        }
        svg.push_str("</ul></figure>\n");
        svg
    }

    fn axes(&self, scale: &Scale, svg: &mut String) {
        for step in 0..=GRID {
            let value = scale.most * f64::from(step) / f64::from(GRID);
            let y = scale.y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                tick(value)
            );
        }
        let evenly = || {
            (0..=GRID)
                .map(|step| scale.from + (scale.to - scale.from) * f64::from(step) / f64::from(GRID))
                .map(|value| (value, format!("{value:.0}")))
                .collect()
        };
        let marks: Vec<(f64, String)> = if self.marks.is_empty() { evenly() } else { self.marks.clone() };
        for (value, label) in marks {
            let _ = writeln!(
                svg,
                "<text class=\"tick mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                scale.x(value),
                HEIGHT - BOTTOM + 16.0,
                escape(&label)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick end\" x=\"{}\" y=\"{}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 2.0,
            escape(self.across)
        );
    }
}

/// Colours of the style sheet.
const COLOURS: usize = 6;

fn draw(line: &Line, unit: &str, scale: &Scale, svg: &mut String) {
    let colour = line.colour % COLOURS;
    let (mut path, mut before) = (String::new(), None);
    for &(x, y) in &line.points {
        let joined = before.is_some_and(|before: f64| x - before <= line.gap);
        let _ = write!(path, "{}{:.1} {:.1}", if joined { "L" } else { "M" }, scale.x(x), scale.y(y));
        before = Some(x);
    }
    let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"{path}\"/>");
    for &(x, y) in &line.points {
        let _ = writeln!(
            svg,
            "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}: {} {}</title></circle>",
            scale.x(x),
            scale.y(y),
            escape(&line.label),
            short(y),
            escape(unit)
        );
    }
}

/// Without digits that say nothing.
fn tick(value: f64) -> String {
    let text = short(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// To a number that divides well.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    let fits = steps.iter().map(|step| step * power).find(|most| *most >= value);
    fits.unwrap_or(10.0 * power)
}

/// Text within HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_not_drawn_over() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (5.0, 3.0)];
        let chart = Chart {
            title: "a < b".into(),
            lines: vec![Line { label: "x".into(), points, gap: 2.0, colour: 0 }],
            ..Chart::default()
        };
        let html = chart.to_html();
        let path = html.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        assert!(html.contains("a &lt; b"));
        assert_eq!(Chart::default().to_html(), "");
    }

    #[test]
    fn scales_end_on_round_numbers() {
        assert_eq!(round_up(0.0), 1.0);
        assert_eq!(round_up(97.0), 100.0);
        assert_eq!(round_up(1_700.0), 2_000.0);
    }
}
