//! HTTP and WebSocket by hand, for everything a well-behaved client cannot
//! say.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Gateway, SOON, within};

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A socket and nothing else.
pub struct Raw {
    stream: TcpStream,
}

/// The status line and headers of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    text: String,
}

impl Head {
    /// A header, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.text
            .lines()
            .find(named)
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
    }
}

impl Raw {
    /// Connects.
    pub async fn connect(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.listen).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects, upgrades as `user` and reads past Ready.
    pub async fn upgraded(gateway: &Gateway, user: i64) -> Self {
        let mut raw = Self::connect(gateway).await;
        raw.write(Upgrade::new(&format!("/ws?user={user}&device=raw")).text().as_bytes()).await;
        let head = raw.head().await;
        assert_eq!(head.status, 101, "{head:?}");
        let (opcode, _) = raw.frame().await.expect("Ready");
        assert_eq!(opcode, BINARY);
        raw
    }

    /// Writes; that the peer has gone already is no failure.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = within("a write", SOON, self.stream.write_all(bytes)).await;
    }

    /// Writes, and says whether the peer still takes it.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within("a write", SOON, self.stream.write_all(bytes)).await.is_ok()
    }

    /// Reads an HTTP head; the body, if any, stays unread.
    pub async fn head(&mut self) -> Head {
        self.try_head(SOON).await.expect("an HTTP answer")
    }

    /// The same; `None` when the peer closes without an answer.
    pub async fn try_head(&mut self, deadline: Duration) -> Option<Head> {
        let read = async {
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\n") {
                text.push(self.stream.read_u8().await.ok()?);
            }
            String::from_utf8(text).ok()
        };
        let text = within("an HTTP answer or the end", deadline, read).await?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Some(Head { status: status.unwrap_or_else(|| panic!("no status in {text:?}")), text })
    }

    /// Reads one WebSocket frame: opcode and payload; `None` at the end.
    /// Checks what every frame of a server owes.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.stream.read_u8().await.ok()?;
            assert_eq!(first & 0xf0, FIN, "a server frame is whole and has no RSV bits");
            let second = self.stream.read_u8().await.ok()?;
            assert!(second < 0x80, "a server frame is not masked");
            let length = match second {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((first & 0x0f, payload))
        };
        within("a frame or the end", SOON, read).await
    }

    /// Reads up to the Close frame and the end of the stream behind it.
    /// Returns its code; `None` for a Close without one.
    pub async fn closed(&mut self) -> Option<u16> {
        let payload = loop {
            match self.frame().await {
                Some((CLOSE, payload)) => break payload,
                Some(_) => {}
                None => panic!("the stream ended without a Close frame"),
            }
        };
        self.ended(SOON).await;
        let (code, text) = payload.split_at_checked(2)?;
        assert!(std::str::from_utf8(text).is_ok(), "the close text is UTF-8");
        Some(u16::from_be_bytes([code[0], code[1]]))
    }

    /// Waits until the peer ends the stream.
    pub async fn ended(&mut self, deadline: Duration) {
        let mut sink = [0; 4096];
        let read = async { while self.stream.read(&mut sink).await.is_ok_and(|count| count > 0) {} };
        within("the end of the stream", deadline, read).await;
    }
}

/// A masked frame; `first` is FIN, RSV and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(masked(payload));
    out
}

/// A masked frame with its length field written out by hand.
pub fn frame_with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(length);
    out.extend(MASK);
    out.extend(masked(payload));
    out
}

/// A Close frame.
pub fn close(code: u16, text: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], text].concat())
}

fn masked(payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask)
}

/// An upgrade request, correct until it is bent.
pub struct Upgrade {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Upgrade {
    pub fn new(target: &str) -> Self {
        let key = STANDARD.encode(b"sixteen bytes ok");
        let headers = [
            ("Host", "gateway.example"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", &key),
            ("Sec-WebSocket-Protocol", "tidegate.v1"),
        ];
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }

    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Sets or replaces a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    pub fn text(&self) -> String {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\n{headers}\r\n", self.method, self.target)
    }

    /// Sends it on a connection of its own and reads the answer.
    pub async fn send(&self, gateway: &Gateway) -> Head {
        let mut raw = Raw::connect(gateway).await;
        raw.write(self.text().as_bytes()).await;
        raw.head().await
    }
}
