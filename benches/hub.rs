//! The cost of handing things to connections: whom a message is for, whether
//! it is his next one, and his queue; and the wheel that watches over him.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark says no")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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
    let clients = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..MEMBERS {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (server, _) = listener.accept().await.unwrap();
            server.writable().await.unwrap();
            servers.push(Arc::new(server));
        }
        crowd.attach(servers);
        clients
    });
    let mut sink = vec![0; 1 << 20];
    let mut group = c.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(MEMBERS.unsigned_abs()));
    group.bench_function("500 sockets", |b| {
        b.iter_custom(|times| {
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..times {
                let begin = std::time::Instant::now();
                crowd.say();
                spent += begin.elapsed();
                // Read, and not counted.
                for client in &clients {
                    let _ = client.try_read(&mut sink);
                }
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, connections, fan_out);
criterion_main!(benches);
