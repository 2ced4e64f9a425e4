//! What passes the sockets, and who is there.

use std::time::Duration;

use tidegate::proto::envelope::Payload;
use tidegate::proto::{Heartbeat, SyncReq};

use crate::common::payload::{delivered, receipt, typing};
use crate::common::raw::{self, BINARY, FIN, PING, Raw};
use crate::common::{Client, Gateway, Options, SOON, eventually};
use crate::scrape::{Metrics, Series};

pub(crate) const FRAMES: &[Series] = &[
    "tidegate_bytes_total{direction=in}",
    "tidegate_bytes_total{direction=out}",
    "tidegate_frames_total{direction=in,kind=heartbeat}",
    "tidegate_frames_total{direction=in,kind=send}",
    "tidegate_frames_total{direction=in,kind=ack}",
    "tidegate_frames_total{direction=in,kind=receipt}",
    "tidegate_frames_total{direction=in,kind=ephemeral}",
    "tidegate_frames_total{direction=in,kind=websocket}",
    "tidegate_frames_total{direction=in,kind=other}",
    "tidegate_frames_total{direction=out,kind=heartbeat}",
    "tidegate_frames_total{direction=out,kind=ack}",
    "tidegate_frames_total{direction=out,kind=receipt}",
    "tidegate_frames_total{direction=out,kind=ephemeral}",
    "tidegate_frames_total{direction=out,kind=push}",
    "tidegate_frames_total{direction=out,kind=websocket}",
    "tidegate_frames_total{direction=out,kind=other}",
];
const CONNECTIONS: Series = "tidegate_connections";
const USERS: Series = "tidegate_users";
pub(crate) const GAUGES: &[Series] = &[CONNECTIONS, USERS, "tidegate_build_info"];

const CHAT: &str = "p2p:42:43";

#[tokio::test]
async fn every_kind_of_frame_is_counted() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    phone.beat().await;
    phone.send(Payload::Hb(Heartbeat::default())).await;
    phone.store_text(CHAT, "m-1", "x").await;
    friend.expect_push().await;
    friend.send(typing(CHAT, true)).await;
    friend.send(delivered(CHAT, 1)).await;
    phone.expect_delivered(CHAT, 1).await;
    friend.send(receipt(CHAT, 1)).await;
    friend.send(Payload::Sync(SyncReq { conversation_id: CHAT.to_owned(), ..SyncReq::default() })).await;
    phone.expect("a Receipt", |payload| matches!(payload, Payload::Read(_)).then_some(())).await;
    let mut socket = Raw::upgraded(&gateway, 44).await;
    socket.write(&raw::frame(FIN | PING, b"?")).await;
    socket.frame().await.expect("a pong");
    metrics.moved(FRAMES).await;
}

/// A write is counted behind it, when its reader may have it already.
async fn at_rest(gateway: &Gateway) {
    eventually("nothing is written any more", SOON, || async {
        let metrics = Metrics::of(gateway).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (metrics.grown("tidegate_bytes_total{direction=out}").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_are_those_of_the_sockets() {
    let gateway = Gateway::start(Options::new()).await;
    let mut socket = Raw::upgraded(&gateway, 42).await;
    let beat = raw::frame(FIN | BINARY, &[0]);
    at_rest(&gateway).await;
    let metrics = Metrics::of(&gateway).await;
    for _ in 0..10 {
        socket.write(&beat).await;
        socket.frame().await.expect("an echo");
    }
    at_rest(&gateway).await;
    assert_eq!(metrics.grown("tidegate_bytes_total{direction=in}").await, 70.0);
    assert_eq!(metrics.grown("tidegate_bytes_total{direction=out}").await, 30.0);
}

#[tokio::test]
async fn connections_and_users_are_those_of_now() {
    let gateway = Gateway::start(Options::new()).await;
    let metrics = Metrics::of(&gateway).await;
    let phone = Client::connect(&gateway, 42, "phone").await;
    let laptop = Client::connect(&gateway, 42, "laptop").await;
    let friend = Client::connect(&gateway, 43, "phone").await;
    metrics.becomes(CONNECTIONS, 3.0).await;
    metrics.becomes(USERS, 2.0).await;
    phone.close().await;
    friend.close().await;
    metrics.becomes(CONNECTIONS, 1.0).await;
    metrics.becomes(USERS, 1.0).await;
    drop(laptop);
    metrics.becomes(CONNECTIONS, 0.0).await;
    metrics.becomes(USERS, 0.0).await;
}
