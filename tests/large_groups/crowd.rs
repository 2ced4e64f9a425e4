//! Very many clients in little room: they read frames and no more than that.

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream;
use tidegate::proto::Push;
use tidegate::proto::envelope::Payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::payload::{Frame, frames};
use crate::common::raw::Upgrade;
use crate::common::{Gateway, secs, within};

/// Being opened, or read, at once.
const AT_ONCE: usize = 128;
/// For whatever all of them do.
const PATIENCE: std::time::Duration = secs(40);
/// Any mask does.
const MASK: [u8; 4] = [1, 2, 3, 4];

/// One of them.
struct Face {
    stream: TcpStream,
    inbox: BytesMut,
}

/// Many connected clients.
pub(crate) struct Crowd(Vec<Face>);

impl Face {
    async fn connect(gateway: &Gateway, user: i64) -> Self {
        let stream = TcpStream::connect(gateway.listen).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut face = Self { stream, inbox: BytesMut::new() };
        let request = Upgrade::new(&format!("/ws?user={user}&device=crowd"));
        face.stream.write_all(request.text().as_bytes()).await.unwrap();
        loop {
            face.fill().await;
            if let Some(end) = face.inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = face.inbox.split_to(end + 4);
                assert!(head.starts_with(b"HTTP/1.1 101"), "{head:?}");
                break;
            }
        }
        loop {
            if face.payloads().iter().any(|payload| matches!(payload, Payload::Ready(_))) {
                return face;
            }
            face.fill().await;
        }
    }

    async fn fill(&mut self) {
        assert_ne!(self.stream.read_buf(&mut self.inbox).await.unwrap(), 0, "the gateway ended it");
    }

    /// What has come whole; the buffer is given back when it is empty.
    fn payloads(&mut self) -> Vec<Payload> {
        let mut payloads = Vec::new();
        while let Some(&[first, length, ..]) = self.inbox.first_chunk::<4>() {
            assert_eq!(first, 0x82, "a whole binary frame");
            let (header, length) = match length {
                126 => (4, usize::from(u16::from_be_bytes([self.inbox[2], self.inbox[3]]))),
                127 => panic!("longer than anything here"),
                short => (2, usize::from(short)),
            };
            if self.inbox.len() < header + length {
                break;
            }
            self.inbox.advance(header);
            for frame in frames(self.inbox.split_to(length).freeze()) {
                if let Frame::Envelope(envelope) = frame {
                    payloads.extend(envelope.payload);
                }
            }
        }
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
        }
        payloads
    }

    async fn push(&mut self) -> Push {
        loop {
            let mut payloads = self.payloads().into_iter();
            match payloads.next() {
                None => self.fill().await,
                Some(Payload::Push(push)) => {
                    assert_eq!(payloads.next(), None, "something came behind it");
                    return push;
                }
                Some(other) => panic!("{other:?} instead of a push"),
            }
        }
    }

    async fn send(&mut self, payload: Payload) {
        let body = crate::common::payload::frame(payload);
        let length = u8::try_from(body.len()).ok().filter(|length| *length < 126).expect("a short frame");
        let masked = body.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key);
        let frame: Vec<u8> = [0x82, 0x80 | length].into_iter().chain(MASK).chain(masked).collect();
        self.stream.write_all(&frame).await.unwrap();
    }
}

impl Crowd {
    /// Connects these users, taking turns between the gateways.
    pub(crate) async fn connect(gateways: &[&Gateway], users: std::ops::RangeInclusive<i64>) -> Self {
        let turns = users.zip(gateways.iter().cycle());
        let opening = turns.map(|(user, gateway)| Face::connect(gateway, user));
        let faces = stream::iter(opening).buffered(AT_ONCE).collect();
        Self(within("everybody is there", PATIENCE, faces).await)
    }

    /// The message that comes next, which is the same for all, and comes to
    /// each once.
    pub(crate) async fn expect_push(&mut self) -> Push {
        let pushes = stream::iter(&mut self.0).map(Face::push).buffer_unordered(AT_ONCE).collect();
        let mut pushes: Vec<Push> = within("a push to everybody", PATIENCE, pushes).await;
        let push = pushes.pop().unwrap();
        assert!(pushes.iter().all(|other| *other == push), "not the same for all");
        push
    }

    /// Each says what `of` its number is.
    pub(crate) async fn say(&mut self, of: impl Fn(usize) -> Payload) {
        for (index, face) in self.0.iter_mut().enumerate() {
            within("a write", PATIENCE, face.send(of(index))).await;
        }
    }

    /// Nobody has got anything more.
    pub(crate) fn expect_silence(&mut self) {
        for face in &mut self.0 {
            let mut byte = [0];
            let read = face.stream.try_read(&mut byte);
            assert!(read.is_err(), "something came: {read:?}");
        }
    }
}
