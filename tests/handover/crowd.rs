//! Two thousand connections through ten upgrades in a row.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Envelope, Heartbeat};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::build;
use crate::common::payload::{Frame, frame, frames};
use crate::common::{Gateway, Options, Redis, eventually, secs, within};
use crate::moving::{settle, talkers};
use crate::patient;
use crate::talker::{client_frame, connected, server_frame, upgraded};

const CROWD: i64 = 2_000;
/// Of these, those in the middle of a frame, and those with unsent bytes.
const MID_FRAME: i64 = 150;
const UNSENT: i64 = 150;
const UPGRADES: u64 = 10;
/// Users of the crowd begin behind this one.
const FIRST: i64 = 10_000;
/// They talk all the time, with fragments and pings.
const TALKERS: i64 = 20;
/// What a slow reader is sent before each upgrade.
const CHUNKS: usize = 8;
const CHUNK: usize = 24 * 1024;

struct Client {
    user: i64,
    stream: TcpStream,
    ports: (SocketAddr, SocketAddr),
}

/// With so little room that what is not read waits at the gateway.
async fn narrow(gateway: SocketAddr, user: i64) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    upgraded(socket.connect(gateway).await.unwrap(), user).await
}

fn chunk(round: u64, n: usize) -> String {
    let head = format!("{round}/{n}/");
    head.clone() + &"y".repeat(CHUNK - head.len())
}

impl Client {
    /// What is done before an upgrade.
    async fn before(&mut self, round: u64) -> Vec<u8> {
        let beat =
            frame(Payload::Hb(Heartbeat { client_time: i64::try_from(round).unwrap(), background: false }));
        let bytes = client_frame(0x82, &beat);
        let cut = if self.user <= MID_FRAME { fastrand::usize(1..bytes.len()) } else { 0 };
        let (now, later) = bytes.split_at(cut);
        self.stream.write_all(now).await.unwrap();
        later.to_vec()
    }

    /// What is done after it: what was begun is ended and answered, and what
    /// was sent is read, byte by byte.
    async fn after(&mut self, round: u64, rest: &[u8]) {
        self.stream.write_all(rest).await.unwrap();
        let is_slow = (MID_FRAME + 1..=MID_FRAME + UNSENT).contains(&self.user);
        let mut chunks = 0;
        loop {
            let (_, payload) = within("an answer", secs(60), server_frame(&mut self.stream))
                .await
                .unwrap_or_else(|| panic!("user {} was cut off", self.user));
            for frame in frames(payload.into()) {
                match frame {
                    Frame::Envelope(Envelope { payload: Some(Payload::Custom(custom)), .. }) => {
                        assert!(custom.payload == chunk(round, chunks).as_bytes(), "chunk {chunks}");
                        chunks += 1;
                    }
                    Frame::Envelope(Envelope { payload: Some(Payload::HbAck(ack)), .. }) => {
                        assert_eq!(ack.client_time, i64::try_from(round).unwrap());
                        assert_eq!(chunks, if is_slow { CHUNKS } else { 0 }, "user {}", self.user);
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// Connects, talks and leaves, again and again; returns how often.
async fn visit(gateway: SocketAddr, mut user: i64, stop: Arc<AtomicBool>, visits: Arc<AtomicU64>) {
    while !stop.load(Ordering::Acquire) {
        user += 1;
        let mut stream = connected(gateway, user).await;
        stream.write_all(&client_frame(0x82, &[0])).await.unwrap();
        let (_, payload) = within("an echo", secs(60), server_frame(&mut stream)).await.expect("not cut off");
        assert_eq!(payload, [0]);
        visits.fetch_add(1, Ordering::AcqRel);
    }
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.process_id())).unwrap().count()
}

async fn two_thousand_go_through_ten_upgrades(options: Options) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // Two processes and two thousand clients share the cores, unoptimized.
    let mut gateway = Gateway::start(patient(options)).await;
    let dir = tempfile::tempdir().unwrap();
    let builds = build::two(&gateway, dir.path()).await;
    let talkers = talkers(&gateway, TALKERS, Duration::from_millis(100)).await;
    let mut clients = Vec::new();
    for user in 1..=CROWD {
        let is_slow = (MID_FRAME + 1..=MID_FRAME + UNSENT).contains(&user);
        let stream = if is_slow {
            narrow(gateway.listen, FIRST + user).await
        } else {
            connected(gateway.listen, FIRST + user).await
        };
        let ports = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        clients.push(Client { user, stream, ports });
    }
    let (stop, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut visitors = JoinSet::new();
    for first in [100_000, 200_000] {
        visitors.spawn(visit(gateway.listen, first, Arc::clone(&stop), Arc::clone(&visits)));
    }
    let slow: Vec<i64> = (MID_FRAME + 1..=MID_FRAME + UNSENT).map(|user| FIRST + user).collect();
    let mut open = Vec::new();
    for (round, build) in (0..UPGRADES).zip(builds.iter().rev().cycle()) {
        for n in 0..CHUNKS {
            let body = json!({"target": {"users": slow}, "topic": "t", "payload": chunk(round, n)});
            let sent = gateway.http().patient().post("/v1/push", &body).await.success().json();
            assert_eq!(sent["delivered"], UNSENT, "{sent}");
        }
        let mut rests = Vec::new();
        for client in &mut clients {
            rests.push(client.before(round).await);
        }
        let before = visits.load(Ordering::Acquire);
        let report = build::upgrade(&mut gateway, build).await;
        println!("{round}: {report}, {} descriptors", descriptors(&gateway));
        assert!(report["moved"].as_i64().unwrap() >= CROWD + TALKERS, "{report}");
        assert!(report["midFrame"].as_i64().unwrap() >= MID_FRAME, "{report}");
        assert!(report["withUnsent"].as_i64().unwrap() >= UNSENT, "{report}");
        assert_eq!(report["drained"], 0, "{report}");
        let mut all = JoinSet::new();
        for (mut client, rest) in clients.drain(..).zip(rests) {
            all.spawn(async move {
                client.after(round, &rest).await;
                let ports = (client.stream.local_addr().unwrap(), client.stream.peer_addr().unwrap());
                assert_eq!(ports, client.ports, "the same connection");
                client
            });
        }
        clients = within("everybody is answered", secs(120), all.join_all()).await;
        clients.sort_by_key(|client| client.user);
        open.push(descriptors(&gateway));
        eventually("visitors come again", secs(60), || async {
            (visits.load(Ordering::Acquire) > before + 5).then_some(())
        })
        .await;
        assert!(visitors.try_join_next().is_none(), "no visitor is refused or reset");
    }
    let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
    assert!(most - least < 20, "descriptors: {open:?}");
    stop.store(true, Ordering::Release);
    let joined = tokio::time::timeout(Duration::from_secs(60), visitors.join_all()).await;
    assert!(joined.is_ok(), "visitors end");
    println!("{} visits, {} messages", visits.load(Ordering::Acquire), settle(talkers).await);
    assert!(!gateway.log().contains("ERROR"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_go_through_ten_upgrades_on_redis() {
    let redis = Redis::start().await;
    two_thousand_go_through_ten_upgrades(Options::cluster(&redis, "gw-1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_go_through_ten_upgrades_on_the_embedded_store() {
    two_thousand_go_through_ten_upgrades(Options::new()).await;
}
