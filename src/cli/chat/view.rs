//! How things look: lines and prompt of a terminal, and the plain lines that
//! scripts read.
//!
//! Promises that nothing a peer wrote reaches the terminal as a control
//! character, and that one message is one line in plain mode.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::Date};

use super::line::{Line, State};
use super::outbox::{Change, Tick};
use crate::cli::identity::Parties;

/// How things look in one chat.
#[derive(Debug)]
pub(super) struct View {
    parties: Parties,
    colour: bool,
    zone: TimeZone,
    last_day: Option<Date>,
}

/// A plain line and where it goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Stdout(String),
    Stderr(String),
}

impl View {
    /// `colour`: whether escape sequences may be used.
    pub(super) fn new(parties: Parties, colour: bool, zone: TimeZone) -> Self {
        Self { parties, colour, zone, last_day: None }
    }

    /// The line as scripts read it; `None` for what they do not need: what
    /// was typed here, and history read before.
    pub(super) fn plain(&self, line: &Line) -> Option<Plain> {
        let me = self.parties.me;
        Some(match line {
            Line::Peer { from, text, fresh: true, .. } => {
                Plain::Stdout(format!("[{}] {}", name(*from), one_line(text)))
            }
            Line::Own { text, fresh: true, .. } => Plain::Stdout(format!("[{me}] {}", one_line(text))),
            Line::Tick(change) => Plain::Stdout(change_words(*change)),
            Line::Failed { why } => Plain::Stdout(format!("✗ failed: {}", one_line(why))),
            Line::Notice(text) => Plain::Stderr(format!("* {}", one_line(text))),
            Line::Peer { .. } | Line::Own { .. } | Line::Typed { .. } => return None,
        })
    }

    /// The line as people read it, ended by line feeds; empty for what the
    /// prompt shows already.
    pub(super) fn terminal(&mut self, line: &Line) -> String {
        match line {
            Line::Peer { from, text, at_ms, fresh } => {
                let name = self.paint(PEER, &name(*from));
                self.message(&name, text, *at_ms, *fresh)
            }
            Line::Own { text, at_ms, fresh } => {
                let name = self.paint(OWN, "you");
                self.message(&name, text, *at_ms, *fresh)
            }
            Line::Typed { text, at_ms } => {
                let name = self.paint(OWN, "you");
                self.message(&name, text, *at_ms, true)
            }
            Line::Tick(_) => String::new(),
            Line::Failed { why } => {
                format!("{}\n", self.paint(BAD, &format!("✗ not sent: {}", one_line(why))))
            }
            Line::Notice(text) => {
                let lines = text.lines().map(|line| self.paint(DIM, &format!("· {}", one_line(line))));
                lines.map(|line| line + "\n").collect()
            }
        }
    }

    /// The prompt, e.g. `2 is typing…  ✓✓ › `.
    pub(super) fn prompt(&self, state: State) -> String {
        let mut prompt = String::new();
        if !state.connected {
            prompt.push_str(&self.paint(BAD, "reconnecting…"));
            prompt.push(' ');
        } else if let Some(peer) = self.parties.peer().filter(|_| state.typing) {
            prompt.push_str(&self.paint(DIM, &format!("{peer} is typing…")));
            prompt.push(' ');
        }
        if let Some(tick) = state.tick {
            let style = match tick {
                Tick::Read => READ,
                Tick::Failed => BAD,
                Tick::Sending | Tick::Stored | Tick::Delivered => DIM,
            };
            let mut text = mark(tick).to_owned();
            if state.pending > 1 {
                text.push_str(&format!("{} ", state.pending));
            }
            // Without colour nothing but a word tells read from delivered.
            if tick == Tick::Read && !self.colour {
                text.push_str(" read");
            }
            prompt.push_str(&self.paint(style, text.trim_end()));
            prompt.push(' ');
        }
        prompt.push_str(&self.paint(BOLD, "›"));
        prompt.push(' ');
        prompt
    }

    fn message(&mut self, name: &str, text: &str, at_ms: i64, fresh: bool) -> String {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(self.zone.clone());
        let mut shown = String::new();
        let day = at.date();
        if self.last_day.replace(day) != Some(day) {
            shown.push_str(&self.paint(DIM, &format!("── {} ──", at.strftime("%A, %-d %B %Y"))));
            shown.push('\n');
        }
        shown.push_str(&self.paint(DIM, &at.strftime("%H:%M").to_string()));
        shown.push_str(&format!(" {name} "));
        let mut lines = text.lines().map(one_line);
        let style = if fresh { NONE } else { DIM };
        shown.push_str(&self.paint(style, &lines.next().unwrap_or_default()));
        for line in lines {
            shown.push_str("\n      ");
            shown.push_str(&self.paint(style, &line));
        }
        shown.push('\n');
        shown
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour && !style.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A sender.
fn name(from: i64) -> String {
    if from == 0 { "system".to_owned() } else { from.to_string() }
}

fn mark(tick: Tick) -> &'static str {
    match tick {
        Tick::Failed => "✗",
        Tick::Sending => "·",
        Tick::Stored => "✓",
        Tick::Delivered | Tick::Read => "✓✓",
    }
}

fn change_words(change: Change) -> String {
    let word = match change.tick {
        Tick::Failed => "failed",
        Tick::Sending => "sending",
        Tick::Stored => "stored",
        Tick::Delivered => "delivered",
        Tick::Read => "read",
    };
    format!("{} {word} seq={}", mark(change.tick), change.seq)
}

/// Line feeds as `\n`, tabs as spaces, other control characters and those
/// that turn the writing direction as `�`.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\r', '\n']).chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\t' => line.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => line.push('�'),
            c if c.is_control() => line.push('�'),
            c => line.push(c),
        }
    }
    line
}

const NONE: &str = "";
const DIM: &str = "2";
const BOLD: &str = "1";
const PEER: &str = "1;35";
const OWN: &str = "1;32";
const READ: &str = "1;36";
const BAD: &str = "31";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConversationId, UserId};

    fn view(colour: bool) -> View {
        let conversation = ConversationId::parse("p2p:1:2").unwrap();
        let parties = Parties { me: UserId::new(1).unwrap(), conversation };
        View::new(parties, colour, TimeZone::UTC)
    }

    fn peer(text: &str, fresh: bool) -> Line {
        Line::Peer { from: 2, text: text.to_owned(), at_ms: 1_790_000_000_000, fresh }
    }

    #[test]
    fn plain_lines_are_one_per_message() {
        let plain = |line| view(false).plain(&line);
        let out = |text: &str| Some(Plain::Stdout(text.to_owned()));
        assert_eq!(plain(peer("hi", true)), out("[2] hi"));
        assert_eq!(plain(peer("two\nlines\n", true)), out("[2] two\\nlines"));
        assert_eq!(plain(peer("\x1b[31mred\x07", true)), out("[2] �[31mred�"));
        assert_eq!(plain(peer("old", false)), None);
        let system = Line::Peer { from: 0, text: "hi".to_owned(), at_ms: 0, fresh: true };
        assert_eq!(plain(system), out("[system] hi"));
        assert_eq!(plain(Line::Typed { text: "x".into(), at_ms: 0 }), None);
        assert_eq!(plain(Line::Own { text: "phone".into(), at_ms: 0, fresh: true }), out("[1] phone"));
        assert_eq!(plain(Line::Tick(Change { tick: Tick::Stored, seq: 1 })), out("✓ stored seq=1"));
        assert_eq!(plain(Line::Tick(Change { tick: Tick::Read, seq: 1 })), out("✓✓ read seq=1"));
        assert_eq!(plain(Line::Failed { why: "no (INVALID)".into() }), out("✗ failed: no (INVALID)"));
        assert_eq!(plain(Line::Notice("gone".into())), Some(Plain::Stderr("* gone".to_owned())));
    }

    #[test]
    fn the_terminal_shows_day_time_and_name() {
        let mut view = view(false);
        let first = view.terminal(&peer("hi\nthere", true));
        assert_eq!(first, "── Monday, 21 September 2026 ──\n14:13 2 hi\n      there\n");
        assert_eq!(view.terminal(&peer("\x1b[2J", true)), "14:13 2 �[2J\n");
        assert_eq!(view.terminal(&Line::Notice("a\nb".into())), "· a\n· b\n");
    }

    #[test]
    fn the_prompt_tells_how_far_the_last_message_got() {
        let state = State { tick: None, pending: 0, typing: false, connected: true };
        let prompt = |state| view(false).prompt(state);
        assert_eq!(prompt(state), "› ");
        assert_eq!(prompt(State { tick: Some(Tick::Sending), pending: 1, ..state }), "· › ");
        assert_eq!(prompt(State { tick: Some(Tick::Sending), pending: 3, ..state }), "·3 › ");
        assert_eq!(prompt(State { tick: Some(Tick::Delivered), ..state }), "✓✓ › ");
        assert_eq!(prompt(State { tick: Some(Tick::Read), ..state }), "✓✓ read › ");
        assert_eq!(prompt(State { typing: true, ..state }), "2 is typing… › ");
        assert_eq!(prompt(State { connected: false, typing: true, ..state }), "reconnecting… › ");
        let coloured = view(true).prompt(State { tick: Some(Tick::Read), ..state });
        assert_eq!(coloured, "\x1b[1;36m✓✓\x1b[0m \x1b[1m›\x1b[0m ");
    }
}
