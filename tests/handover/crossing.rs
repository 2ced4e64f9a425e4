//! What other gateways send meanwhile: nothing falls between the two
//! processes, and nothing comes to both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::proto::Envelope;
use tidegate::proto::envelope::Payload;
use tokio::net::TcpStream;

use crate::common::payload::{Frame, frames};
use crate::common::{Gateway, Options, Redis, eventually, secs, within};
use crate::moving::{everybody_goes_on, settle};
use crate::patient;
use crate::talker::{Talker, connected, server_frame};

const LISTENER: i64 = 9_999;

/// Publishes 0, 1, 2 … through `gateway`; returns how many.
async fn publish(gateway: Arc<Gateway>, stop: Arc<AtomicBool>) -> u64 {
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        let body = json!({"target": {"users": [LISTENER]}, "topic": "number", "payload": n.to_string()});
        let reached = gateway.http().post("/v1/push", &body).await.success().json();
        assert_eq!(reached["online"], 1, "{reached}");
        n += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    n
}

/// Hears every number once and in order.
async fn hear(mut stream: TcpStream, heard: Arc<AtomicU64>) {
    let mut expected = 0;
    while let Some((opcode, payload)) = server_frame(&mut stream).await {
        assert_eq!(opcode, 2);
        for frame in frames(payload.into()) {
            let Frame::Envelope(Envelope { payload: Some(Payload::Custom(custom)), .. }) = frame else {
                panic!("{frame:?}")
            };
            assert_eq!(custom.payload, expected.to_string().as_bytes());
            expected += 1;
            heard.store(expected, Ordering::Release);
        }
    }
}

fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_between_gateways() {
    let redis = Redis::start().await;
    let (mut a, b) = tokio::join!(
        Gateway::start(patient(Options::cluster(&redis, "gw-a"))),
        Gateway::start(patient(Options::cluster(&redis, "gw-b")))
    );
    let b = Arc::new(b);
    let mut streams = Vec::new();
    for user in 1..=40 {
        let gateway = if user % 2 == 1 { a.listen } else { b.listen };
        streams.push((user, connected(gateway, user).await));
    }
    let other = |user| if user % 2 == 1 { user + 1 } else { user - 1 };
    let talkers: Vec<_> = streams
        .into_iter()
        .map(|(user, stream)| Talker::start(stream, user, other(user), Duration::from_millis(20)))
        .collect();
    let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let listener = tokio::spawn(hear(connected(a.listen, LISTENER).await, Arc::clone(&heard)));
    let publisher = tokio::spawn(publish(Arc::clone(&b), Arc::clone(&stop)));
    for _ in 0..4 {
        everybody_goes_on(&talkers, 3).await;
        let report = a.upgrade().await;
        println!("{report}");
        assert_eq!((&report["moved"], &report["drained"]), (&21.into(), &0.into()));
    }
    everybody_goes_on(&talkers, 3).await;
    stop.store(true, Ordering::Release);
    let published = within("the last number", secs(60), publisher).await.unwrap();
    eventually("every number is heard", secs(60), || async {
        assert!(!listener.is_finished(), "the listener has found something wrong, or was cut off");
        (heard.load(Ordering::Acquire) == published).then_some(())
    })
    .await;
    assert!(published > 30, "{published}");
    listener.abort();
    println!("{published} numbers, {} messages", settle(talkers).await);
    for gateway in [&a, &*b] {
        let metrics = gateway.http().get("/metrics").await.text();
        assert_eq!(value(&metrics, "tidegate_bus_gaps_total"), 0.0, "the counts go on");
        for cause in ["hole", "lease"] {
            let series = format!("tidegate_reconciliations_total{{cause=\"{cause}\"}}");
            assert_eq!(value(&metrics, &series), 0.0, "{cause}");
        }
    }
    assert!(!a.log().contains("WARN tidegate::bus"), "{}", a.log());
}
