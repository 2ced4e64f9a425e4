//! Where lines come from and go to: a terminal with a prompt at the bottom,
//! or plain stdin and stdout.

use std::io::{BufRead, Write};

use anyhow::Result;
use tokio::sync::mpsc;

use super::line::{Line, State};
use super::terminal::Terminal;
use super::view::{Plain, View};

/// What the user did.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, without its end.
    Line(String),
    /// The end: Ctrl-D, Ctrl-C, or the end of stdin.
    End,
}

/// Where lines come from and go to.
pub(super) struct Screen {
    view: View,
    source: Source,
}

enum Source {
    Terminal(Box<Terminal>),
    /// The terminal, after the prompt was put away.
    Left,
    Plain(mpsc::Receiver<String>),
}

impl Screen {
    /// A prompt at the bottom of the terminal.
    pub(super) fn terminal(view: View) -> Result<Self> {
        Ok(Self { view, source: Source::Terminal(Box::new(Terminal::new()?)) })
    }

    /// Lines from stdin, lines to stdout.
    pub(super) fn plain(view: View) -> Self {
        let (sender, lines) = mpsc::channel(64);
        // A thread of its own: unlike the runtime's, it does not hold up the
        // end of the process while it waits for input.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { view, source: Source::Plain(lines) }
    }

    /// The next thing the user does. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Input> {
        match &mut self.source {
            Source::Terminal(terminal) => terminal.next().await,
            Source::Left => std::future::pending().await,
            Source::Plain(lines) => Ok(lines.recv().await.map_or(Input::End, Input::Line)),
        }
    }

    /// Shows lines and the prompt below them.
    pub(super) async fn show(&mut self, lines: &[Line], state: State) -> Result<()> {
        match &mut self.source {
            Source::Terminal(terminal) => {
                let lines: Vec<_> = lines.iter().map(|line| self.view.terminal(line)).collect();
                terminal.show(lines, &self.view.prompt(state)).await
            }
            Source::Left => {
                let shown: String = lines.iter().map(|line| self.view.terminal(line)).collect();
                Ok(std::io::stdout().write_all(shown.as_bytes())?)
            }
            Source::Plain(_) => print_plain(&self.view, lines),
        }
    }

    /// Puts the prompt away and gives the terminal back.
    pub(super) fn leave(&mut self) -> Result<()> {
        if let Source::Terminal(terminal) = &mut self.source {
            terminal.readline.flush()?;
            self.source = Source::Left;
        }
        Ok(())
    }
}

fn print_plain(view: &View, lines: &[Line]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        match view.plain(line) {
            Some(Plain::Stdout(text)) => writeln!(stdout, "{text}")?,
            Some(Plain::Stderr(text)) => writeln!(std::io::stderr(), "{text}")?,
            None => {}
        }
    }
    Ok(stdout.flush()?)
}
