//! Where lines come from and go to: a terminal with a prompt at the bottom,
//! or plain stdin and stdout.

use std::collections::VecDeque;
use std::io::{BufRead, Write};

use anyhow::Result;
use rustyline_async::{Readline, ReadlineEvent, SharedWriter};
use tokio::sync::mpsc;

use super::line::{Line, State};
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
    Terminal {
        readline: Box<Readline>,
        writer: SharedWriter,
        typed: VecDeque<Input>,
        prompt: String,
    },
    /// The terminal, after the prompt was put away.
    Left,
    Plain {
        lines: mpsc::Receiver<String>,
    },
}

impl Screen {
    /// A prompt at the bottom of the terminal.
    pub(super) fn terminal(view: View) -> Result<Self> {
        let (mut readline, writer) = Readline::new(String::new())?;
        readline.should_print_line_on(false, false);
        let source = Source::Terminal {
            readline: Box::new(readline),
            writer,
            typed: VecDeque::new(),
            prompt: String::new(),
        };
        Ok(Self { view, source })
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
        Self { view, source: Source::Plain { lines } }
    }

    /// The next thing the user does. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Input> {
        match &mut self.source {
            Source::Terminal { readline, typed, .. } => match typed.pop_front() {
                Some(input) => Ok(input),
                None => {
                    let event = readline.readline().await?;
                    Ok(input(readline, event))
                }
            },
            Source::Left => std::future::pending().await,
            Source::Plain { lines } => Ok(lines.recv().await.map_or(Input::End, Input::Line)),
        }
    }

    /// Shows lines and the prompt below them.
    pub(super) async fn show(&mut self, lines: &[Line], state: State) -> Result<()> {
        match &mut self.source {
            Source::Plain { .. } => plain(&self.view, lines),
            Source::Left => {
                let shown: String = lines.iter().map(|line| self.view.terminal(line)).collect();
                Ok(std::io::stdout().write_all(shown.as_bytes())?)
            }
            Source::Terminal { readline, writer, typed, prompt } => {
                // The writer queues a limited number of lines.
                for some in lines.chunks(100) {
                    for line in some {
                        writer.write_all(self.view.terminal(line).as_bytes())?;
                    }
                    drain(readline, typed).await?;
                }
                let new = self.view.prompt(state);
                if *prompt != new {
                    readline.update_prompt(&new)?;
                    *prompt = new;
                }
                Ok(())
            }
        }
    }

    /// Puts the prompt away and gives the terminal back.
    pub(super) fn leave(&mut self) -> Result<()> {
        if let Source::Terminal { readline, .. } = &mut self.source {
            readline.flush()?;
            self.source = Source::Left;
        }
        Ok(())
    }
}

/// Lets the readline print what the writer holds: it does so when polled.
async fn drain(readline: &mut Readline, typed: &mut VecDeque<Input>) -> Result<()> {
    loop {
        let event = tokio::select! {
            biased;
            event = readline.readline() => event?,
            () = std::future::ready(()) => return Ok(()),
        };
        let event = input(readline, event);
        typed.push_back(event);
    }
}

fn input(readline: &mut Readline, event: ReadlineEvent) -> Input {
    match event {
        ReadlineEvent::Line(line) => {
            if !line.trim().is_empty() {
                readline.add_history_entry(line.clone());
            }
            Input::Line(line)
        }
        ReadlineEvent::Eof | ReadlineEvent::Interrupted => Input::End,
    }
}

fn plain(view: &View, lines: &[Line]) -> Result<()> {
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
