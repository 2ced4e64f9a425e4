//! A client that talks all the time and checks every byte of what it hears.
//!
//! Its frames are cut at random places, so that the gateway has a part of one
//! at almost any time; what it sends and hears is numbered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{AckStatus, Envelope, push};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::common::payload::{Frame, frame, frames, text};
use crate::common::within;

/// Sends on their way at a time.
const WINDOW: u64 = 3;
/// Longest silence between two things heard while something is awaited; a busy
/// disk may take that long for a commit.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the two halves share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    acked: AtomicU64,
    heard: AtomicU64,
}

/// What one client has heard.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    /// Seq of each own message, by number.
    pub(crate) acks: BTreeMap<u64, i64>,
    /// Seq and number of each message of the other, in the order they came.
    pub(crate) pushes: Vec<(i64, u64)>,
    /// The longest time an answer took.
    pub(crate) longest: Duration,
}

pub(crate) struct Talker {
    pub(crate) user: i64,
    shared: Arc<Shared>,
    writer: JoinHandle<OwnedWriteHalf>,
    reader: JoinHandle<Heard>,
}

/// What message `n` of `user` says.
fn content(user: i64, n: u64) -> String {
    let length = (user.unsigned_abs() * 31 + n * 97) % 700;
    format!("{user}/{n}/{}", "x".repeat(usize::try_from(length).unwrap()))
}

pub(crate) fn conversation(a: i64, b: i64) -> String {
    format!("p2p:{}:{}", a.min(b), a.max(b))
}

impl Talker {
    /// Talks as `user` to `other`, who is connected too, until it is told to
    /// stop. `pause` is the longest time between two parts of a send.
    pub(crate) fn start(stream: TcpStream, user: i64, other: i64, pause: Duration) -> Self {
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared::default());
        let writer = tokio::spawn(talk(write, user, other, pause, Arc::clone(&shared)));
        let reader = tokio::spawn(listen(read, user, other, Arc::clone(&shared)));
        Self { user, shared, writer, reader }
    }

    /// Says nothing new from now on.
    pub(crate) fn hush(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// How many were sent and answered so far.
    pub(crate) fn count(&self) -> u64 {
        self.shared.acked.load(Ordering::Acquire)
    }

    /// How many messages of the other it has heard so far.
    pub(crate) fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Acquire)
    }

    /// Whether all it has sent is answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.writer.is_finished() && self.count() == self.shared.sent.load(Ordering::Acquire)
    }

    /// What it said, in number, and what it heard.
    pub(crate) async fn finish(self) -> (u64, Heard) {
        self.hush();
        let writer = within("the last send", PATIENCE, self.writer).await.unwrap();
        let sent = self.shared.sent.load(Ordering::Acquire);
        // Ends the reader: the gateway answers the end with its own.
        drop(writer);
        let heard = within("the end", PATIENCE, self.reader).await.expect("the reader checks what it hears");
        (sent, heard)
    }
}

/// Both of a pair have heard all of each other, once and in order.
pub(crate) fn check(a: (i64, u64, &Heard), b: (i64, u64, &Heard)) {
    let mut seqs = BTreeSet::new();
    for ((user, sent, own), (_, _, other)) in [(a, b), (b, a)] {
        assert_eq!(
            own.acks.keys().copied().collect::<Vec<_>>(),
            (0..sent).collect::<Vec<_>>(),
            "acks of {user}"
        );
        let mut heard: Vec<u64> = other.pushes.iter().map(|(_, n)| *n).collect();
        assert!(other.pushes.is_sorted_by_key(|(seq, _)| *seq), "order of {user}'s messages");
        heard.sort_unstable();
        assert_eq!(heard, (0..sent).collect::<Vec<_>>(), "what was heard of {user}");
        for (seq, n) in &other.pushes {
            assert_eq!(own.acks[n], *seq, "the seq of message {n} of {user}");
        }
        assert!(own.acks.values().all(|seq| seqs.insert(*seq)), "two messages with one seq");
    }
    let all = i64::try_from(a.1 + b.1).unwrap();
    assert_eq!(seqs, (1..=all).collect::<BTreeSet<i64>>(), "seqs without a hole");
}

/// A client's socket, past `Ready`.
pub(crate) async fn connected(gateway: SocketAddr, user: i64) -> TcpStream {
    upgraded(TcpStream::connect(gateway).await.unwrap(), user).await
}

/// The handshake by hand, and past `Ready`.
pub(crate) async fn upgraded(mut stream: TcpStream, user: i64) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET /ws?user={user}&device=d HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: tidegate.v1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the upgrade", PATIENCE, stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let (opcode, payload) = server_frame(&mut stream).await.unwrap();
    assert_eq!(opcode, 2);
    assert!(matches!(
        &frames(payload.into())[..],
        [Frame::Envelope(Envelope { payload: Some(Payload::Ready(_)), .. })]
    ));
    stream
}

/// One WebSocket frame of a server, which owes it whole and unmasked.
pub(crate) async fn server_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    assert_eq!(first & 0xf0, 0x80, "a torn stream: {first:#x} is no head of a frame");
    let second = stream.read_u8().await.ok()?;
    assert!(second < 0x80, "a torn stream: masked");
    let length = match second {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    assert!(length < 1 << 22, "a torn stream: {length} bytes");
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0f, payload))
}

/// A masked binary message; `fin` and `opcode` for fragments.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = fastrand::u32(..).to_be_bytes();
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
        medium => {
            out.push(0xfe);
            out.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

async fn talk(
    mut write: OwnedWriteHalf,
    user: i64,
    other: i64,
    pause: Duration,
    shared: Arc<Shared>,
) -> OwnedWriteHalf {
    let conversation = conversation(user, other);
    let mut n = 0;
    while !shared.stop.load(Ordering::Acquire) {
        if n - shared.acked.load(Ordering::Acquire) >= WINDOW {
            sleep(Duration::from_millis(2)).await;
            continue;
        }
        let message = frame(Payload::Send(text(&conversation, &format!("{user}-{n}"), &content(user, n))));
        // Some in two fragments, with a ping between.
        let bytes = if n % 5 == 4 {
            let (first, second) = message.split_at(fastrand::usize(0..message.len()));
            [client_frame(0x02, first), client_frame(0x89, b"hi"), client_frame(0x80, second)].concat()
        } else {
            client_frame(0x82, &message)
        };
        shared.sent.store(n + 1, Ordering::Release);
        let cut = fastrand::usize(1..bytes.len());
        for part in [&bytes[..cut], &bytes[cut..]] {
            within("a write", PATIENCE, write.write_all(part)).await.unwrap();
            sleep(pause.mul_f64(fastrand::f64())).await;
        }
        n += 1;
    }
    // Everything sent is answered before the end.
    let end = tokio::time::Instant::now() + PATIENCE;
    while shared.acked.load(Ordering::Acquire) < n {
        assert!(
            tokio::time::Instant::now() < end,
            "user {user}: {} of {n} answered",
            shared.acked.load(Ordering::Acquire)
        );
        sleep(Duration::from_millis(5)).await;
    }
    write
}

async fn listen(read: OwnedReadHalf, user: i64, other: i64, shared: Arc<Shared>) -> Heard {
    let mut read = BufReader::new(read);
    let mut heard = Heard::default();
    loop {
        let since = tokio::time::Instant::now();
        let next = match timeout(PATIENCE, server_frame(&mut read)).await {
            Ok(next) => next,
            Err(_) => panic!("user {user} hears nothing: {heard:?}"),
        };
        heard.longest = heard.longest.max(since.elapsed());
        let Some((opcode, payload)) = next else {
            assert!(shared.stop.load(Ordering::Acquire), "user {user} was cut off");
            return heard;
        };
        match opcode {
            2 => {}
            10 => {
                assert_eq!(payload, b"hi");
                continue;
            }
            other => panic!("user {user}: opcode {other}: {payload:?}"),
        }
        for frame in frames(payload.into()) {
            match frame {
                Frame::Envelope(Envelope { payload: Some(payload), .. }) => {
                    take(&mut heard, user, other, payload, &shared);
                }
                other => panic!("user {user}: {other:?}"),
            }
        }
    }
}

fn take(heard: &mut Heard, user: i64, other: i64, payload: Payload, shared: &Shared) {
    match payload {
        Payload::Ack(ack) => {
            assert_eq!(ack.status(), AckStatus::Stored, "user {user}: {ack:?}");
            assert!(!ack.duplicate, "user {user}: {ack:?}");
            let n = ack.client_msg_id.split_once('-').unwrap().1.parse().unwrap();
            assert_eq!(heard.acks.insert(n, ack.seq), None, "user {user}: a second ack of {n}");
            shared.acked.fetch_add(1, Ordering::AcqRel);
        }
        Payload::Push(push) => {
            let Some(push::Content::TextContent(text)) = &push.content else { panic!("{push:?}") };
            let n: u64 = push.client_msg_id.split_once('-').unwrap().1.parse().unwrap();
            if push.from_user_id == user {
                // A repair may come before its ack: it is the client's to know
                // what it sent.
                assert_eq!(*text, content(user, n));
                return;
            }
            assert_eq!(push.from_user_id, other);
            assert_eq!(*text, content(other, n), "user {user}: message {n} of {other}");
            heard.pushes.push((push.seq, n));
            shared.heard.fetch_add(1, Ordering::AcqRel);
        }
        payload => {
            panic!("user {user}: {:?}", Envelope { header: None, payload: Some(payload) }.encoded_len())
        }
    }
}
