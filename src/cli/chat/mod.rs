//! `tidegate chat`: two users, or the members of a group, talk in the terminal.
//!
//! `talk` decides, `link` keeps the connection, `screen` and `view` show it;
//! this file ties them together. On a terminal there is a prompt at the
//! bottom with the tick of the last message; otherwise every line of stdin is
//! sent and every message and status is one line of stdout.

mod change;
mod line;
mod link;
mod outbox;
mod pull;
mod received;
mod screen;
mod talk;
mod terminal;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use tokio::time::{Instant, sleep_until};

use super::identity::{IdentityArgs, new_client_msg_id};
use crate::client::Client;
use crate::types::unix_ms;
use link::{Event, Link};
use screen::{Input, Screen};
use talk::Talk;
use view::View;

/// Flags of `tidegate chat`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In the chat: /who, /help, /quit. The prompt shows how far your last message got:\n  \
· sending   ✓ stored   ✓✓ delivered   coloured ✓✓ read\n\n\
When stdin is not a terminal, each of its lines is sent; stdout has a line `[sender] text` per message and\n\
`✓ stored seq=1`, `✓✓ delivered seq=1`, `✓✓ read seq=1` as they happen. It ends with 0 once stdin ended and\n\
everything is stored.\n\n\
Examples:\n  tidegate chat --user 1 --to 2\n  tidegate chat --user 1 --to g:team\n  tidegate chat --user 2 --to 1 --device laptop --url ws://127.0.0.1:7710/ws\n  \
echo hello | tidegate chat --user 1 --to 2\n  tidegate chat --user 2 --to 1 --linger 60 </dev/null"
)]
pub struct ChatArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// Keep listening this long after stdin ended
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    linger: u32,
}

impl ChatArgs {
    /// Talks until the user leaves. Fails when the gateway cannot be reached
    /// at first, ends the connection for good, or did not store everything
    /// within 5 s of the end.
    pub async fn run(self) -> Result<()> {
        let endpoint = self.identity.endpoint("terminal")?;
        let (client, ready) = Client::connect(&endpoint).await?;
        let parties = self.identity.parties(&ready)?;
        let device = endpoint.device.to_string();
        let link = Link::new(endpoint, client);
        let mut talk = Talk::new(parties.clone());
        talk.connected(&ready, Instant::now());

        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let colour =
            interactive && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let screen = if interactive {
            let (me, other, gateway) = (parties.me, parties.other(), &ready.gateway_id);
            talk.notice(format!("user {me} to {other} on gateway {gateway} (/help, /quit)"));
            Screen::terminal(View::new(parties, colour, TimeZone::system()))?
        } else {
            Screen::plain(View::new(parties, colour, TimeZone::system()))
        };
        Chat { talk, link, screen, device, linger: Duration::from_secs(self.linger.into()), left_at: None }
            .run()
            .await
    }
}

struct Chat {
    talk: Talk,
    link: Link,
    screen: Screen,
    device: String,
    linger: Duration,
    left_at: Option<Instant>,
}

impl Chat {
    async fn run(mut self) -> Result<()> {
        loop {
            let now = Instant::now();
            self.talk.tick(now);
            for payload in self.talk.take_out() {
                self.link.send(payload).await;
            }
            self.screen.show(&self.talk.take_lines(), self.talk.state()).await?;
            if let Some(result) = self.end(now) {
                self.screen.leave()?;
                self.link.close().await;
                return result;
            }
            let wake = self.wake();
            tokio::select! {
                // Every arm keeps its state in `self` and may be dropped.
                input = self.screen.next(), if self.left_at.is_none() => self.on_input(input?)?,
                event = self.link.next() => self.on_event(event).await?,
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    fn on_input(&mut self, input: Input) -> Result<()> {
        match input {
            Input::Line(line) => match line.trim_end() {
                "" => {}
                "/quit" | "/q" | "/exit" => self.leave()?,
                "/help" | "/?" => self.talk.notice(HELP.to_owned()),
                "/who" => self.talk.who(&self.device),
                text if text.starts_with('/') && !text.starts_with("//") => {
                    self.talk.notice(format!(
                        "{text}: no such command; /help names them, // begins a text with /"
                    ));
                }
                text => {
                    let text = if text.starts_with("//") { text.get(1..).unwrap_or(text) } else { text };
                    self.talk.say(new_client_msg_id(), text.to_owned(), unix_ms());
                }
            },
            Input::End => self.leave()?,
        }
        Ok(())
    }

    async fn on_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Came(payload) => self.talk.on(*payload, Instant::now()),
            Event::Up(ready) => {
                self.talk.notice(format!("connected again, to gateway {}", ready.gateway_id));
                self.talk.connected(&ready, Instant::now());
            }
            Event::Down(why) => {
                self.talk.notice(why);
                self.talk.disconnected();
            }
            Event::Over(why) => {
                self.talk.disconnected();
                self.screen.show(&self.talk.take_lines(), self.talk.state()).await?;
                self.screen.leave()?;
                bail!("{why}");
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.left_at = Some(Instant::now());
        self.screen.leave()
    }

    /// Whether and how the chat is over.
    fn end(&self, now: Instant) -> Option<Result<()>> {
        let left_at = self.left_at?;
        let pending = self.talk.state().pending;
        if pending == 0 {
            return (now >= left_at + self.linger).then_some(Ok(()));
        }
        let over = now >= left_at + self.linger.max(STORE_WAIT);
        over.then(|| Err(anyhow::anyhow!("{pending} of the messages sent were not stored in time")))
    }

    fn wake(&self) -> Option<Instant> {
        let pending = self.talk.state().pending > 0;
        let end = self.left_at.map(|at| at + if pending { self.linger.max(STORE_WAIT) } else { self.linger });
        [self.talk.wake(), end].into_iter().flatten().min()
    }
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// How long the end waits for messages that are not stored yet.
const STORE_WAIT: Duration = Duration::from_secs(5);
const HELP: &str = "\
/who   who is talking to whom; of one user also whether he is online
/quit  leave (as do Ctrl-D and Ctrl-C)
// at the start of a line sends a text that begins with /
prompt: · sending, ✓ stored, ✓✓ delivered, coloured ✓✓ read, ✗ refused";
