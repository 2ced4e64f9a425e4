//! What an idle connection takes, counted byte by byte as it is asked of the
//! allocator; `benches/README.md` says what an allocator makes of that.
//!
//! The clients are in the same process and keep nothing but their descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a panic is how a test says no"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::Redis;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate::internal::Payload;
use tidegate::proto::{MessageType, SendMessageReq, send_message_req};
use tidegate::{Flags, Gateway, resolve};
use tidegate_loadtest::frame::envelope;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Counts what every thread takes: a connection's reads are made on others.
#[global_allocator]
static COUNTED: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Connections that are measured, after some others: tables that all share
/// have their size by then.
const MEASURED: i64 = 600;
const BEFORE: i64 = 500;
const CONVERSATIONS: i64 = 20;

const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a connection without a conversation, and of each conversation.
const MOST_IDLE: f64 = 1_000.0;
const MOST_PER_CONVERSATION: f64 = 25.0;

/// A gateway of this thread: it runs while it is waited for.
struct Running {
    runtime: Runtime,
    tasks: LocalSet,
    address: SocketAddr,
}

impl Running {
    fn start(directory: &Path, redis: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let flags = Flags {
            listen: Some("127.0.0.1:0".into()),
            admin: Some("127.0.0.1:0".into()),
            redis: Some(redis.into()),
            data_dir: Some(directory.display().to_string()),
            ..Flags::default()
        };
        // Who was seen today is remembered beside: of people, not of connections.
        let alone = [("TIDEGATE_PRESENCE_ENABLED".to_owned(), "false".to_owned())];
        let gateway = runtime.block_on(async { Gateway::build(resolve(&flags, alone).unwrap()).unwrap() });
        let (address, _) = gateway.addresses();
        let tasks = LocalSet::new();
        tasks.spawn_local(gateway.run());
        Self { runtime, tasks, address }
    }
}

/// Reads until `whole` says that it is all.
fn read_until(socket: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) {
    let mut got = Vec::new();
    while !whole(&got) {
        let mut some = [0; 4_096];
        let read = socket.read(&mut some).unwrap();
        assert!(read > 0, "the gateway hung up");
        got.extend_from_slice(&some[..read]);
    }
}

/// Whether a whole frame stands at the start.
fn is_frame(bytes: &[u8]) -> bool {
    match bytes {
        [_, 126, high, low, rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        [_, length, rest @ ..] => *length < 126 && rest.len() >= usize::from(*length),
        _ => false,
    }
}

/// It listens once it is ready.
fn reach(gateway: SocketAddr) -> TcpStream {
    let end = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(gateway) {
            Ok(socket) => return socket,
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn connect(gateway: SocketAddr, user: i64) -> TcpStream {
    let mut socket = reach(gateway);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /ws?user={user}&device=d HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: tidegate.v1\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let ready = |got: &[u8]| {
        let head = got.windows(4).position(|four| four == b"\r\n\r\n");
        head.is_some_and(|head| is_frame(&got[head + 4..]))
    };
    read_until(&mut socket, ready);
    socket
}

/// One user writes to many, and leaves.
fn write_to(gateway: SocketAddr, writer: i64, users: Range<i64>) {
    let mut socket = connect(gateway, writer);
    let message = |user: i64| {
        envelope(Payload::Send(SendMessageReq {
            conversation_id: format!("p2p:{writer}:{user}"),
            client_msg_id: format!("{writer}-{user}"),
            r#type: MessageType::Text.into(),
            content: Some(send_message_req::Content::TextContent("hello".into())),
            ..SendMessageReq::default()
        }))
    };
    let count = usize::try_from(users.end - users.start).unwrap();
    socket.write_all(&users.flat_map(message).collect::<Vec<_>>()).unwrap();
    // Its acks, each in a frame of its own.
    read_until(&mut socket, |got| {
        let mut rest = got;
        (0..count).all(|_| {
            let whole = is_frame(rest);
            rest = rest
                .get(whole as usize * (2 + usize::from(rest.get(1).copied().unwrap_or(0)))..)
                .unwrap_or_default();
            whole
        })
    });
}

/// Lets the gateway run while the clients do something.
fn meanwhile<T: Send + 'static>(gateway: &Running, clients: impl FnOnce() -> T + Send + 'static) -> T {
    gateway.tasks.block_on(&gateway.runtime, async {
        let (done, finished) = oneshot::channel();
        thread::spawn(move || done.send(clients()));
        let result = finished.await.unwrap();
        // What the last one left to be done.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        result
    })
}

fn open(gateway: &Running, users: Range<i64>) -> (f64, Vec<TcpStream>) {
    let (count, address) = (users.end - users.start, gateway.address);
    let region = Region::new(COUNTED);
    let sockets = meanwhile(gateway, move || users.map(|user| connect(address, user)).collect::<Vec<_>>());
    (taken(&region) / count as f64, sockets)
}

/// Bytes taken and not given back since.
fn taken(region: &Region<'_, std::alloc::System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// What tokio takes for a socket that it watches.
fn socket_bytes(runtime: &Runtime) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    let region = Region::new(COUNTED);
    let watched = runtime.block_on(async { tokio::net::TcpStream::from_std(client).unwrap() });
    let bytes = taken(&region);
    drop(watched);
    bytes
}

#[test]
fn an_idle_connection_takes_little() {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(8_192), maximum: Some(8_192) },
    );
    // Where the routes and the conversations are, so that none of them is counted.
    let redis = Builder::new_current_thread().enable_all().build().unwrap().block_on(Redis::start());
    let directory = tempfile::tempdir().unwrap();
    let gateway = Running::start(directory.path(), &redis.url());
    let address = gateway.address;
    let talking = 30_000..30_000 + BEFORE + MEASURED;
    let users = talking.clone();
    meanwhile(&gateway, move || (1..=CONVERSATIONS).for_each(|from| write_to(address, from, users.clone())));
    drop(gateway);

    // One that has nothing of that in memory.
    let gateway = Running::start(directory.path(), &redis.url());
    let (_, others) = open(&gateway, 10_000..10_000 + BEFORE);
    let (idle, plain) = open(&gateway, 20_000..20_000 + MEASURED);
    let (_, first) = open(&gateway, talking.start..talking.start + BEFORE);
    let (busy, talking) = open(&gateway, talking.start + BEFORE..talking.end);
    let each = (busy - idle) / CONVERSATIONS as f64;

    let parts = tidegate::internal::connection_parts();
    let socket = socket_bytes(&gateway.runtime);
    let known = parts.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() + socket;
    println!("bytes of an idle connection, as asked of the allocator");
    parts.iter().for_each(|(part, bytes)| println!("{part:>22} {bytes:6}"));
    println!("{:>22} {socket:6}", "socket in tokio");
    println!("{:>22} {:6.0}", "hub, wheel, the rest", idle - known);
    println!("{:>22} {idle:6.0}", "in all");
    println!("{:>22} {each:6.1}", "each conversation");
    drop((others, plain, first, talking));
    assert!(idle <= MOST_IDLE, "{idle:.0} bytes of an idle connection");
    assert!(each <= MOST_PER_CONVERSATION, "{each:.1} bytes of each conversation");
}
