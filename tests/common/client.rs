//! A client of the protocol: one WebSocket of one device.
//!
//! What arrives while something else is awaited is kept, so that tests read in
//! the order of their story rather than of the wire.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Ack, Envelope, Push, Ready, SendMessageReq, SyncReq};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;

use super::payload::{self, Frame};
use super::{Gateway, SOON};

const ECHO: Duration = Duration::from_secs(2);

/// One device's connection.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    inbox: Vec<Frame>,
    /// What the gateway said first; empty before [`Client::expect_ready`].
    pub ready: Ready,
    name: String,
}

enum Arrival {
    Frames,
    Closed(Option<u16>),
}

impl Client {
    /// Connects under `auth.mode = "none"` and waits for Ready.
    pub async fn connect(gateway: &Gateway, user: i64, device: &str) -> Self {
        let mut client = Self::open(gateway, &format!("/ws?user={user}&device={device}")).await;
        client.expect_ready().await;
        client
    }

    /// Connects to `target`; nothing is awaited after the handshake.
    pub async fn open(gateway: &Gateway, target: &str) -> Self {
        Self::open_with(gateway, target, &[]).await
    }

    /// The same with request headers.
    pub async fn open_with(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Self {
        match Self::try_open(gateway, target, headers).await {
            Ok(client) => client,
            Err(error) => panic!("handshake of {target}: {error}"),
        }
    }

    /// The handshake, which may be refused: then the status is the error.
    pub async fn try_open(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let stream = TcpStream::connect(gateway.listen).await.unwrap();
        Self::try_open_over(stream, gateway, target, headers).await
    }

    /// The same with so little room that what is not read waits at the gateway.
    pub async fn open_narrow(gateway: &Gateway, target: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(gateway.listen).await.unwrap();
        Self::try_open_over(stream, gateway, target, &[]).await.unwrap()
    }

    async fn try_open_over(
        stream: TcpStream,
        gateway: &Gateway,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, String> {
        let request = request(gateway, target, headers);
        stream.set_nodelay(true).unwrap();
        let handshake = tokio_tungstenite::client_async(request, stream);
        let socket = match super::within("a handshake", SOON, handshake).await {
            Ok((socket, response)) => {
                let chosen =
                    response.headers().get("sec-websocket-protocol").map(|value| value.as_bytes().to_vec());
                assert_eq!(chosen.as_deref(), Some(&b"tidegate.v1"[..]), "subprotocol");
                socket
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                return Err(response.status().as_u16().to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        Ok(Self { socket, inbox: Vec::new(), ready: Ready::default(), name: target.to_owned() })
    }

    /// Waits for Ready, which must be the first frame.
    pub async fn expect_ready(&mut self) {
        if self.inbox.is_empty() {
            match self.arrival("Ready", SOON).await {
                Arrival::Frames => {}
                Arrival::Closed(code) => panic!("{}: closed with {code:?} instead of Ready", self.name),
            }
        }
        match self.inbox.remove(0) {
            Frame::Envelope(Envelope { payload: Some(Payload::Ready(ready)), .. }) => self.ready = ready,
            other => panic!("{}: {other:?} came before Ready", self.name),
        }
    }

    /// One WebSocket message of these bytes.
    pub async fn send_raw(&mut self, bytes: impl Into<Vec<u8>>) {
        let message = Message::binary(bytes.into());
        super::within("a write", SOON, self.socket.send(message))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// One frame of one payload.
    pub async fn send(&mut self, payload: Payload) {
        self.send_raw(payload::frame(payload)).await;
    }

    /// A message of any kind.
    pub async fn send_message(&mut self, request: SendMessageReq) {
        self.send(Payload::Send(request)).await;
    }

    /// A text message.
    pub async fn send_text(&mut self, conversation: &str, id: &str, text: &str) {
        self.send_message(payload::text(conversation, id, text)).await;
    }

    /// A text message and its STORED ack.
    pub async fn store_text(&mut self, conversation: &str, id: &str, text: &str) -> Ack {
        self.send_text(conversation, id, text).await;
        self.expect_stored(id).await
    }

    /// The byte `00`, and its echo. Everything the gateway had queued for this
    /// connection before has arrived by then.
    pub async fn beat(&mut self) {
        self.send_raw([0]).await;
        self.take("the echo of 00", SOON, |frame| matches!(frame, Frame::Beat).then_some(())).await;
    }

    /// A closing handshake begun here; returns the code that came back.
    pub async fn close(mut self) -> Option<u16> {
        super::within("a close", SOON, self.socket.close(None)).await.unwrap();
        self.expect_close().await
    }

    /// The first frame, past or future, that `pick` likes; it is removed.
    pub async fn take<T>(&mut self, what: &str, deadline: Duration, pick: impl Fn(&Frame) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + deadline;
        let mut seen = 0;
        loop {
            while seen < self.inbox.len() {
                if let Some(value) = pick(&self.inbox[seen]) {
                    self.inbox.remove(seen);
                    return value;
                }
                seen += 1;
            }
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if let Arrival::Closed(code) = self.arrival(what, left).await {
                panic!("{}: closed with {code:?} instead of {what}; inbox: {:#?}", self.name, self.inbox);
            }
        }
    }

    /// The same over payloads.
    pub async fn expect<T>(&mut self, what: &str, pick: impl Fn(&Payload) -> Option<T>) -> T {
        self.take(what, SOON, |frame| payload_of(frame).and_then(&pick)).await
    }

    /// Reads until the connection ends; the close code, or `None` without one.
    pub async fn expect_close(&mut self) -> Option<u16> {
        loop {
            if let Arrival::Closed(code) = self.arrival("the end", SOON).await {
                return code;
            }
        }
    }

    /// Sends, unless the connection has ended.
    pub async fn try_send(&mut self, payload: Payload) -> bool {
        let message = Message::binary(payload::frame(payload));
        super::within("a write", SOON, self.socket.send(message)).await.is_ok()
    }

    /// What comes next; `None` = the connection has ended.
    pub async fn next(&mut self) -> Option<Vec<Payload>> {
        if self.inbox.is_empty()
            && let Arrival::Closed(_) = self.arrival("anything", SOON).await
        {
            return None;
        }
        Some(self.drain())
    }

    /// All messages of a conversation, pulled from its beginning.
    pub async fn pull(&mut self, conversation: &str) -> Vec<Push> {
        let mut all: Vec<Push> = Vec::new();
        loop {
            let from_seq = all.last().map_or(1, |push| push.seq + 1);
            let request_id = format!("pull-{from_seq}");
            self.send(Payload::Sync(SyncReq {
                request_id: request_id.clone(),
                conversation_id: conversation.to_owned(),
                from_seq,
                limit: 100,
                ..SyncReq::default()
            }))
            .await;
            let page = self
                .expect("a page", |payload| match payload {
                    Payload::SyncResp(page) if page.request_id == request_id => Some(page.clone()),
                    _ => None,
                })
                .await;
            all.extend(page.messages);
            if !page.has_more {
                return all;
            }
        }
    }

    /// The first live message that came and was not asked for yet.
    pub fn take_push(&mut self) -> Option<Push> {
        let is_push = |frame: &Frame| matches!(payload_of(frame), Some(Payload::Push(_)));
        match self.inbox.remove(self.inbox.iter().position(is_push)?) {
            Frame::Envelope(Envelope { payload: Some(Payload::Push(push)), .. }) => Some(push),
            other => panic!("not a push: {other:?}"),
        }
    }

    /// Everything that came and was not asked for yet; it is removed.
    pub fn drain(&mut self) -> Vec<Payload> {
        let payload = |frame| if let Frame::Envelope(envelope) = frame { envelope.payload } else { None };
        self.inbox.drain(..).filter_map(payload).collect()
    }

    /// Keeps something that was taken too soon.
    pub fn put_back(&mut self, payload: Payload) {
        self.inbox.push(Frame::Envelope(Envelope { header: None, payload: Some(payload) }));
    }

    /// The texts among the pushes that came and were not asked for yet.
    pub fn drain_texts(&mut self) -> Vec<String> {
        let text = |payload| {
            if let Payload::Push(push) = payload { Some(payload::text_of(&push).to_owned()) } else { None }
        };
        self.drain().into_iter().filter_map(text).collect()
    }

    async fn arrival(&mut self, what: &str, deadline: Duration) -> Arrival {
        let deadline = tokio::time::Instant::now() + deadline;
        loop {
            let Ok(next) = tokio::time::timeout_at(deadline, self.socket.next()).await else {
                panic!("{}: no {what} in time; inbox: {:#?}", self.name, self.inbox);
            };
            match next {
                Some(Ok(Message::Binary(message))) => {
                    self.inbox.extend(payload::frames(message).into_iter().flat_map(unbatched));
                    return Arrival::Frames;
                }
                Some(Ok(Message::Close(frame))) => {
                    // Lets the echo out, which the peer may be waiting for.
                    let _ = tokio::time::timeout(ECHO, self.socket.next()).await;
                    return Arrival::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{}: {other:?}", self.name),
                Some(Err(_)) | None => return Arrival::Closed(None),
            }
        }
    }
}

/// A burst of live messages reads as the messages.
fn unbatched(frame: Frame) -> Vec<Frame> {
    match frame {
        Frame::Envelope(Envelope { header, payload: Some(Payload::PushBatch(batch)) }) if !batch.replay => {
            let push = |push| {
                Frame::Envelope(Envelope { header: header.clone(), payload: Some(Payload::Push(push)) })
            };
            batch.messages.into_iter().map(push).collect()
        }
        other => vec![other],
    }
}

fn payload_of(frame: &Frame) -> Option<&Payload> {
    if let Frame::Envelope(envelope) = frame { envelope.payload.as_ref() } else { None }
}

fn request(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = format!("ws://{}{target}", gateway.listen).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "tidegate.v1".parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(
            tokio_tungstenite::tungstenite::http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    request
}
