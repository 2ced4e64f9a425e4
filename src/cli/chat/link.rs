//! The connection that comes back: connects, reconnects with jittered
//! back-off, and moves when told to.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::line::kick_words;
use crate::client::{Client, ClientError, Endpoint};
use crate::wire::pb::envelope::Payload;
use crate::wire::pb::{GoAway, Kick, Ready};

/// What happened to the connection.
#[derive(Debug)]
pub(super) enum Event {
    /// It is up, again.
    Up(Box<Ready>),
    /// It is down and will come back.
    Down(String),
    /// It is down for good.
    Over(String),
    /// Something came.
    Came(Box<Payload>),
}

#[derive(Debug)]
enum State {
    Up(Box<Client>),
    Broken(ClientError),
    Waiting(Instant),
    Connecting(JoinHandle<Result<(Client, Ready), ClientError>>),
    Over,
}

/// The connection that comes back.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Endpoint,
    state: State,
    up_since: Instant,
    attempts: u32,
    leave_at: Option<Instant>,
    move_to: Option<String>,
    kick: Option<Kick>,
}

impl Link {
    /// Takes over a connection made to `endpoint`.
    pub(super) fn new(endpoint: Endpoint, client: Client) -> Self {
        Self {
            endpoint,
            state: State::Up(Box::new(client)),
            up_since: Instant::now(),
            attempts: 0,
            leave_at: None,
            move_to: None,
            kick: None,
        }
    }

    /// Sends, if the connection is up; a failure is the next event.
    pub(super) async fn send(&mut self, payload: Payload) {
        if let State::Up(client) = &mut self.state
            && let Err(error) = client.send(payload).await
        {
            self.state = State::Broken(error);
        }
    }

    /// The next event. Cancel-safe: attempts to connect run on their own.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Broken(error) => {
                    if let Some(event) = self.down(&error, true) {
                        return event;
                    }
                }
                state => self.state = state,
            }
            match &mut self.state {
                State::Up(client) => {
                    let leave_at = self.leave_at;
                    tokio::select! {
                        result = client.next() => match result {
                            Ok(envelope) => if let Some(payload) = envelope.payload {
                                self.heed(&payload);
                                return Event::Came(Box::new(payload));
                            },
                            Err(error) => self.state = State::Broken(error),
                        },
                        () = sleep_until(leave_at.unwrap_or(self.up_since)), if leave_at.is_some() => return self.leave(),
                    }
                }
                State::Waiting(at) => {
                    sleep_until(*at).await;
                    let mut endpoint = self.endpoint.clone();
                    if let Some(url) = self.move_to.take() {
                        endpoint.url = url;
                    }
                    self.state =
                        State::Connecting(tokio::spawn(async move { Client::connect(&endpoint).await }));
                }
                State::Connecting(attempt) => match attempt.await.unwrap_or(Err(ClientError::Gone)) {
                    Ok((client, ready)) => {
                        self.state = State::Up(Box::new(client));
                        self.up_since = Instant::now();
                        return Event::Up(Box::new(ready));
                    }
                    Err(error) => {
                        if let Some(event) = self.down(&error, false) {
                            return event;
                        }
                    }
                },
                State::Over => std::future::pending().await,
                State::Broken(_) => {}
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        if let State::Up(client) = self.state {
            client.close().await;
        }
    }

    fn heed(&mut self, payload: &Payload) {
        match payload {
            Payload::GoAway(GoAway { reconnect_after_ms, endpoints, .. }) => {
                self.leave_at = Some(Instant::now() + Duration::from_millis((*reconnect_after_ms).into()));
                let usable: Vec<_> = endpoints.iter().filter(|url| url.starts_with("ws://")).collect();
                self.move_to = fastrand::choice(usable).cloned();
            }
            Payload::Kick(kick) => self.kick = Some(*kick),
            _ => {}
        }
    }

    fn leave(&mut self) -> Event {
        if let State::Up(client) = std::mem::replace(&mut self.state, State::Waiting(Instant::now())) {
            tokio::spawn(client.close());
        }
        self.leave_at = None;
        Event::Down("reconnecting as asked".to_owned())
    }

    /// `was_up`: a connection was lost, rather than an attempt.
    fn down(&mut self, error: &ClientError, was_up: bool) -> Option<Event> {
        let kick = self.kick.take();
        self.leave_at = None;
        if was_up && self.up_since.elapsed() > STEADY {
            self.attempts = 0;
        }
        let words = kick.as_ref().map_or_else(|| error.to_string(), kick_words);
        if !kick.as_ref().map_or_else(|| error.may_reconnect(), |kick| kick.may_reconnect) {
            self.state = State::Over;
            return Some(Event::Over(words));
        }
        let told = kick.map_or(Duration::ZERO, |kick| Duration::from_millis(kick.retry_after_ms.into()));
        self.state = State::Waiting(Instant::now() + told + back_off(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
        was_up.then(|| Event::Down(format!("{words}; reconnecting…")))
    }
}

/// Between half and all of 250 ms, doubled by each attempt, 10 s at most.
fn back_off(attempts: u32) -> Duration {
    let full = (FIRST_DELAY * 2_u32.pow(attempts.min(10))).min(MOST_DELAY);
    full.mul_f64(0.5 + 0.5 * fastrand::f64())
}

/// A connection that lived this long was not part of the trouble.
const STEADY: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MOST_DELAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_bounded() {
        for (attempts, most) in [(0, 250), (1, 500), (3, 2000), (6, 10_000), (u32::MAX, 10_000)] {
            let most = Duration::from_millis(most);
            let delay = back_off(attempts);
            assert!(delay >= most / 2 && delay <= most, "{attempts}: {delay:?}");
        }
    }
}
