//! A client of the gateway, for the terminal.
//!
//! Owns one WebSocket of `tidegate.v1` over plain TCP: the handshake, the
//! frames, the heartbeats and the detection of a silent peer. Promises that
//! `next` yields envelopes in the order they came and may be dropped and
//! called again without losing one; that every wait has a deadline. It does
//! not reconnect, resend or acknowledge: that is up to the caller.

mod codec;
mod endpoint;
mod error;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub(crate) use endpoint::Endpoint;
pub(crate) use error::ClientError;

use crate::wire::pb::envelope::Payload;
use crate::wire::pb::{Envelope, Ready};

/// A connected and authenticated client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    received: VecDeque<Envelope>,
    heartbeat_every: Duration,
    heartbeat_at: Instant,
    last_seen: Instant,
}

impl Client {
    /// Connects and waits for `Ready`, 10 s at most in all.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<(Self, Ready), ClientError> {
        match timeout(CONNECT_LIMIT, Self::handshake(endpoint)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Deadline { what: "connecting", limit: CONNECT_LIMIT }),
        }
    }

    async fn handshake(endpoint: &Endpoint) -> Result<(Self, Ready), ClientError> {
        let request = endpoint.request()?;
        let (host, port) = endpoint.address()?;
        let connect = |cause| ClientError::Connect { address: format!("{host}:{port}"), cause };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let config =
            WebSocketConfig::default().read_buffer_size(READ_BUFFER).max_message_size(Some(MAX_MESSAGE));
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let now = Instant::now();
        let mut client = Self {
            socket,
            received: VecDeque::new(),
            heartbeat_every: DEFAULT_HEARTBEAT,
            heartbeat_at: now + DEFAULT_HEARTBEAT,
            last_seen: now,
        };
        let ready = match client.next().await?.payload {
            Some(Payload::Ready(ready)) => ready,
            Some(Payload::Error(error)) => return Err(ClientError::Declined(error.message)),
            Some(Payload::Kick(kick)) => {
                return Err(ClientError::Declined(format!("kicked: {:?}", kick.reason())));
            }
            _ => return Err(ClientError::Protocol("the first frame is not Ready")),
        };
        if ready.heartbeat_interval_ms > 0 {
            client.heartbeat_every = Duration::from_millis(ready.heartbeat_interval_ms.into());
        }
        let first = match ready.first_heartbeat_ms {
            0 => client.heartbeat_every,
            ms => Duration::from_millis(ms.into()),
        };
        client.heartbeat_at = Instant::now() + first;
        Ok((client, ready))
    }

    /// Sends one payload; done when the kernel has it, within 5 s.
    pub(crate) async fn send(&mut self, payload: Payload) -> Result<(), ClientError> {
        self.write(codec::encode(&Envelope { header: None, payload: Some(payload) })).await
    }

    /// Sends a heartbeat frame. `next` does so by itself.
    pub(crate) async fn heartbeat(&mut self) -> Result<(), ClientError> {
        self.heartbeat_at = Instant::now() + self.heartbeat_every;
        self.write(codec::HEARTBEAT).await
    }

    /// The next envelope. Sends heartbeats while it waits and fails when the
    /// peer was silent for 2.5 intervals. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Envelope, ClientError> {
        loop {
            if let Some(envelope) = self.received.pop_front() {
                return Ok(envelope);
            }
            let silent_at = self.last_seen + self.heartbeat_every.mul_f32(2.5);
            tokio::select! {
                // Both arms keep their state in `self`.
                message = self.socket.next() => {
                    self.last_seen = Instant::now();
                    self.accept(message.ok_or(ClientError::Gone)??)?;
                }
                () = sleep_until(self.heartbeat_at.min(silent_at)) => {
                    if Instant::now() >= silent_at {
                        return Err(ClientError::Deadline { what: "a sign of life", limit: self.last_seen.elapsed() });
                    }
                    self.heartbeat().await?;
                }
            }
        }
    }

    /// Says goodbye, waiting 1 s at most.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let farewell = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // The goodbye is a courtesy: whoever does not answer it is left anyway.
        let _ = timeout(CLOSE_LIMIT, farewell).await;
    }

    fn accept(&mut self, message: Message) -> Result<(), ClientError> {
        match message {
            Message::Binary(bytes) => Ok(codec::decode(bytes, &mut self.received)?),
            Message::Close(frame) => Err(match frame {
                Some(frame) => {
                    ClientError::Closed { code: frame.code.into(), reason: printable(&frame.reason) }
                }
                None => ClientError::Gone,
            }),
            Message::Text(_) => Err(ClientError::Protocol("a text message")),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), ClientError> {
        match timeout(WRITE_LIMIT, self.socket.send(Message::Binary(frame))).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ClientError::Deadline { what: "sending", limit: WRITE_LIMIT }),
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(5);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
const READ_BUFFER: usize = 16 * 1024;
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
