//! Sockets: taken, refused, and impossible to take.

use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::common::raw::{Raw, Upgrade};
use crate::common::token::jwt_options;
use crate::common::{Client, Gateway, Options, eventually, secs};
use crate::scrape::{Metrics, Series};

pub(crate) const SHED: &[Series] = &["tidegate_connections_shed_total"];
pub(crate) const ERRORS: &[Series] = &["tidegate_accept_errors_total"];
pub(crate) const HANDSHAKES: &[Series] = &[
    "tidegate_connections_accepted_total",
    "tidegate_handshakes_total{result=ok}",
    "tidegate_handshakes_total{result=refused}",
    "tidegate_handshakes_total{result=unauthenticated}",
    "tidegate_handshakes_total{result=timeout}",
    "tidegate_handshakes_total{result=error}",
    "tidegate_handshake_duration_seconds_count",
];

#[tokio::test]
async fn a_full_gateway_sheds() {
    let gateway = Gateway::start(Options::new().env("TIDEGATE_LIMITS_MAX_CONNECTIONS", "1")).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let head = Upgrade::new("/ws?user=43").send(&gateway).await;
    assert_eq!((head.status, head.header("Retry-After")), (503, "5"));
    metrics.moved(SHED).await;
    phone.beat().await;
    phone.close().await;
    // The place is free again.
    eventually("the next one is served", secs(5), || async {
        Client::try_open(&gateway, "/ws?user=43", &[]).await.ok()
    })
    .await;
}

#[tokio::test]
async fn every_end_of_a_handshake_is_counted() {
    let gateway = Gateway::start(jwt_options().env("TIDEGATE_LIMITS_HANDSHAKE", "300ms")).await;
    let metrics = Metrics::of(&gateway).await;
    let jwt = crate::common::token::token(42, "phone");
    let mut client = Client::open(&gateway, &format!("/ws?access_token={jwt}")).await;
    client.expect_ready().await;
    assert_eq!(Upgrade::new("/nope").send(&gateway).await.status, 404);
    assert_eq!(Upgrade::new("/ws?access_token=a.b.c").send(&gateway).await.status, 401);
    let mut half = Raw::connect(&gateway).await;
    half.write(b"GET /ws HTTP/1.1\r\n").await;
    half.ended(secs(5)).await;
    let mut gone = Raw::connect(&gateway).await;
    gone.write(b"GET /ws HTTP/1.1\r\n").await;
    drop(gone);
    metrics.moved(HANDSHAKES).await;
    for series in HANDSHAKES.iter().filter(|series| series.contains("result=")) {
        assert_eq!(metrics.grown(series).await, 1.0, "{series}");
    }
}

#[tokio::test]
async fn without_descriptors_it_waits_and_serves_whom_it_has() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    // What closes a moment later leaves room for a few: more than that will wait.
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.process_id())).unwrap().count();
    limit_descriptors(&gateway, open);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(gateway.listen).await.unwrap();
        let upgrade = Upgrade::new("/ws?user=43").text();
        tokio::io::AsyncWriteExt::write_all(&mut stream, upgrade.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    tokio::time::sleep(secs(1)).await;
    let before = cpu(&gateway);
    tokio::time::sleep(secs(3)).await;
    let spent = cpu(&gateway) - before;
    assert!(spent < Duration::from_millis(600), "{spent:?} of CPU in 3 s of waiting");
    for _ in 0..10 {
        phone.beat().await;
    }
    drop(waiting);
    limit_descriptors(&gateway, 4096);
    metrics.moved(ERRORS).await;
    eventually("new ones are served again", secs(5), || async {
        Client::try_open(&gateway, "/ws?user=44&device=late", &[]).await.ok()
    })
    .await;
    phone.beat().await;
}

fn limit_descriptors(gateway: &Gateway, most: usize) {
    let pid = gateway.process_id().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status().unwrap();
    assert!(status.success(), "prlimit: {status}");
}

/// CPU time the gateway has used.
fn cpu(gateway: &Gateway) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.process_id())).unwrap();
    // The name may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
