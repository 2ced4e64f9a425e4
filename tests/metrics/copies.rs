//! Copies on their way to sockets: the second law of conservation.

use serde_json::json;
use tidegate::proto::PresenceReq;
use tidegate::proto::envelope::Payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::payload::frame;
use crate::common::raw::{BINARY, FIN, Upgrade, frame as mask};
use crate::common::{Client, Gateway, Options, SOON, within};
use crate::scrape::{Metrics, Series};

pub(crate) const COPIES: &[Series] = &["tidegate_copies_enqueued_total", "tidegate_copies_written_total"];
const QUEUED: Series = "tidegate_copies_queued";
pub(crate) const GAUGES: &[Series] = &[QUEUED];
const EPHEMERAL: Series = "tidegate_dropped_total{reason=ephemeral_slow_reader}";
const DROPPED_SLOW: Series = "tidegate_copies_dropped_total{reason=slow_consumer}";
const DROPPED_CLOSED: Series = "tidegate_copies_dropped_total{reason=closed}";
const CLOSED_SLOW: Series = "tidegate_connections_closed_total{reason=slow_consumer}";
const REPLACED: Series = "tidegate_copies_replaced_by_hint_total";
const HINT: Series = "tidegate_conversation_hints_total{cause=slow_reader}";
const BATCHED: Series = "tidegate_outbox_batched_frames_total";
pub(crate) const SLOW: &[Series] =
    &[EPHEMERAL, DROPPED_SLOW, DROPPED_CLOSED, CLOSED_SLOW, REPLACED, HINT, BATCHED];

const CHAT: &str = "p2p:42:43";
const LARGE: usize = 50_000;

/// A connection with little room that is not read after the handshake.
async fn deaf(gateway: &Gateway, user: i64) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.listen).await.unwrap();
    stream.write_all(Upgrade::new(&format!("/ws?user={user}")).text().as_bytes()).await.unwrap();
    let mut byte = [0; 1];
    within("the first byte", SOON, stream.read_exact(&mut byte)).await.unwrap();
    stream
}

/// Sends until some copies wait in an outbox.
async fn fill(phone: &mut Client, metrics: &Metrics) -> usize {
    for n in 0..40 {
        phone.store_text(CHAT, &format!("fill-{n}"), &"x".repeat(LARGE)).await;
        if metrics.now().await.get(QUEUED) > 3.0 {
            return n + 1;
        }
    }
    panic!("nothing ever waits");
}

#[tokio::test]
async fn a_reader_that_stops_costs_itself_only() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    let mut deaf = deaf(&gateway, 43).await;
    fill(&mut phone, &metrics).await;
    metrics.moved(COPIES).await;
    // Small payloads nobody was promised are dropped before anything else.
    let push = json!({"target": {"users": [43]}, "topic": "t", "payload": "x".repeat(60_000)});
    for _ in 0..20 {
        gateway.http().post("/v1/push", &push).await.success();
        friend.beat().await;
        friend.drain();
    }
    metrics.moved(&[EPHEMERAL]).await;
    assert_eq!(metrics.now().await.get(REPLACED), 0.0, "payloads nobody was promised cost it copies");
    let mut sent = 0;
    while metrics.now().await.get(HINT) == 0.0 {
        phone.store_text(CHAT, &format!("more-{sent}"), &"x".repeat(LARGE)).await;
        friend.beat().await;
        friend.drain();
        sent += 1;
        assert!(sent < 100, "its copies never make way");
    }
    metrics.moved(&[REPLACED]).await;
    metrics.are_conserved().await;
    assert_eq!(metrics.now().await.get(CLOSED_SLOW), 0.0);
    // Answers share a write; those it does not read fill what is left.
    let asks = frame(Payload::Presence(PresenceReq::default())).repeat(500);
    phone.send_raw(asks.clone()).await;
    metrics.moved(&[BATCHED]).await;
    let ask = mask(FIN | BINARY, &asks);
    while metrics.now().await.get(CLOSED_SLOW) == 0.0 {
        deaf.write_all(&ask).await.unwrap();
        phone.beat().await;
    }
    // With the copy of which it has a part.
    metrics.moved(&[CLOSED_SLOW, DROPPED_SLOW]).await;
    metrics.becomes(QUEUED, 0.0).await;
    metrics.are_conserved().await;
    phone.beat().await;
    friend.beat().await;
}

#[tokio::test]
async fn what_waits_for_a_peer_that_goes_is_counted() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let deaf = deaf(&gateway, 43).await;
    fill(&mut phone, &metrics).await;
    drop(deaf);
    metrics.moved(&[DROPPED_CLOSED]).await;
    metrics.becomes(QUEUED, 0.0).await;
    metrics.are_conserved().await;
}
