//! The cost of handing things to connections: whom a message is for, whether
//! it is his next one, and his queue; and the wheel that watches over him.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark says no")]

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nix::sys::socket::{MsgFlags, send};
use tidegate::internal::{Crowd, Standing, Wheel};
use tokio::net::{TcpListener, TcpStream};

const MEMBERS: i64 = 500;

fn connections(c: &mut Criterion) {
    let crowd = Crowd::new(100_000).unwrap();
    let mut user = 0;
    c.bench_function("hub/look-up of 100,000", |b| {
        b.iter(|| {
            user = (user + 7_919) % 100_000;
            crowd.look_up(1 + user)
        });
    });
    c.bench_function("outbox/in and out", |b| b.iter(|| crowd.answer()));
    let mut standing = Standing::new(20).unwrap();
    c.bench_function("place/next and repeated, of 20", |b| b.iter(|| standing.offer()));
    let (mut wheel, mut due, mut now) = (Wheel::new(512, 100, 0), Vec::new(), 0);
    c.bench_function("wheel/in and out", |b| {
        b.iter(|| {
            wheel.insert(now + 30_000, ());
            now += 100;
            wheel.advance(now, &mut due);
            due.clear();
        });
    });
}

fn fan_out(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut crowd = Crowd::new(MEMBERS).unwrap();
    let (servers, clients) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..MEMBERS {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (server, _) = listener.accept().await.unwrap();
            server.writable().await.unwrap();
            servers.push(Arc::new(server));
        }
        crowd.attach(servers.iter().cloned());
        (servers, clients)
    });
    let mut sink = vec![0; 1 << 20];
    let mut measured = |times: u64, say: &mut dyn FnMut()| {
        let mut spent = Duration::ZERO;
        for _ in 0..times {
            let begin = Instant::now();
            say();
            spent += begin.elapsed();
            // Read, and not counted.
            for client in &clients {
                let _ = client.try_read(&mut sink);
            }
        }
        spent
    };
    let mut group = c.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(MEMBERS.unsigned_abs()));
    group.bench_function("500 sockets", |b| {
        b.iter_custom(|times| measured(times, &mut || assert_eq!(crowd.say(), MEMBERS.unsigned_abs())));
    });
    let bytes = [b'x'; 128];
    group.bench_function("500 sockets, nothing but send", |b| {
        b.iter_custom(|times| {
            measured(times, &mut || {
                for server in &servers {
                    assert_eq!(send(server.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT), Ok(bytes.len()));
                }
            })
        });
    });
    group.finish();
}

criterion_group!(benches, connections, fan_out);
criterion_main!(benches);
