//! The prompt at the bottom of the terminal and the lines above it.

use std::collections::VecDeque;
use std::io::Write;

use anyhow::Result;
use rustyline_async::{Readline, ReadlineEvent, SharedWriter};

use super::screen::Input;

/// The prompt at the bottom of the terminal and the lines above it.
pub(super) struct Terminal {
    pub(super) readline: Readline,
    writer: SharedWriter,
    prompt: String,
    /// Events that came while lines were printed.
    typed: VecDeque<Input>,
    /// What is on the screen, for repainting it.
    backlog: VecDeque<String>,
    repaint: bool,
}

impl Terminal {
    /// Takes the terminal over until dropped.
    pub(super) fn new() -> Result<Self> {
        let (mut readline, writer) = Readline::new(String::new())?;
        readline.should_print_line_on(false, false);
        let (typed, backlog) = (VecDeque::new(), VecDeque::new());
        Ok(Self { readline, writer, prompt: String::new(), typed, backlog, repaint: false })
    }

    /// The next thing the user does. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Input> {
        if let Some(input) = self.typed.pop_front() {
            return Ok(input);
        }
        let event = self.readline.readline().await?;
        Ok(self.input(event))
    }

    /// Prints lines, each ended by a line feed, and the prompt below them.
    pub(super) async fn show(&mut self, lines: Vec<String>, prompt: &str) -> Result<()> {
        if std::mem::take(&mut self.repaint) {
            let screen = self.last_screen();
            self.writer.write_all(format!("\x1b[2J\x1b[H{screen}").as_bytes())?;
            self.drain().await?;
        }
        // The writer queues a limited number of lines.
        for some in lines.chunks(100) {
            for line in some {
                self.writer.write_all(line.as_bytes())?;
            }
            self.drain().await?;
        }
        self.backlog.extend(lines.into_iter().filter(|line| !line.is_empty()));
        while self.backlog.len() > BACKLOG {
            self.backlog.pop_front();
        }
        if self.prompt != prompt {
            self.readline.update_prompt(prompt)?;
            prompt.clone_into(&mut self.prompt);
        }
        Ok(())
    }

    /// Lets the readline print what the writer holds: it does so when polled.
    async fn drain(&mut self) -> Result<()> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.readline.readline() => event?,
                () = std::future::ready(()) => return Ok(()),
            };
            let input = self.input(event);
            self.typed.push_back(input);
        }
    }

    fn input(&mut self, event: ReadlineEvent) -> Input {
        match event {
            ReadlineEvent::Line(line) => {
                let (columns, _) = size();
                // The readline leaves the upper rows of a line that wrapped
                // behind.
                self.repaint |= most_columns(&self.prompt) + most_columns(&line) >= columns;
                if !line.trim().is_empty() {
                    self.readline.add_history_entry(line.clone());
                }
                Input::Line(line)
            }
            ReadlineEvent::Eof | ReadlineEvent::Interrupted => Input::End,
        }
    }

    /// As many of the last lines as fit above the prompt.
    fn last_screen(&self) -> String {
        let (columns, rows) = size();
        let mut left = rows.saturating_sub(2);
        let mut fitting = Vec::new();
        for line in self.backlog.iter().rev() {
            let height: usize = line.lines().map(|line| most_columns(line) / columns + 1).sum();
            if height > left {
                break;
            }
            left -= height;
            fitting.push(line.as_str());
        }
        fitting.reverse();
        // A line feed makes the writer pass it on.
        if fitting.is_empty() { "\n".to_owned() } else { fitting.concat() }
    }
}

/// At most this many columns are taken by a line with colours: one by an
/// ASCII character, two by any other.
fn most_columns(line: &str) -> usize {
    let mut escaped = false;
    let width = |c: char| {
        let hidden = escaped || c == '\x1b';
        escaped = hidden && c != 'm';
        if hidden { 0 } else { 1 + usize::from(!c.is_ascii()) }
    };
    line.chars().map(width).sum()
}

fn size() -> (usize, usize) {
    let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    (usize::from(columns.max(1)), usize::from(rows))
}

const BACKLOG: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_without_colours() {
        assert_eq!(most_columns("\x1b[1;36m✓✓\x1b[0m mm"), 7);
        assert_eq!(most_columns("你好"), 4);
        assert_eq!(most_columns(""), 0);
    }
}
