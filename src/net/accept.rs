//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::socket::tune;
use crate::telemetry::metrics;

const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 17\r\n\r\ngateway is full.\n";

/// Accepts until `stop`: takes a permit and hands the socket to `spawn`, which
/// must not wait. Without a permit the client gets 503. Running out of
/// descriptors or memory pauses accepting, 10 ms to 1 s, and never ends it.
pub(crate) async fn run(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    spawn: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    if let Err(error) = tune(&listener) {
        warn!(%error, "the listener cannot be tuned");
    }
    let mut backoff = MIN_BACKOFF;
    loop {
        // Both arms are cancel-safe: accept loses no connection when dropped.
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = MIN_BACKOFF;
                metrics().accepted.increment(1);
                match Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit) => spawn(stream, peer, permit),
                    Err(_) => shed(stream),
                }
            }
            Err(error) => {
                metrics().accept_errors.increment(1);
                if !is_exhaustion(&error) {
                    // That one connection failed, not accepting as such.
                    continue;
                }
                warn!(%error, pause = ?backoff, "cannot accept");
                sleep(backoff).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

fn shed(mut stream: TcpStream) {
    metrics().shed.increment(1);
    tokio::spawn(async move {
        // Best effort: a client that does not read its refusal loses it.
        let _ = timeout(Duration::from_secs(1), async {
            stream.write_all(FULL).await?;
            stream.shutdown().await
        })
        .await;
    });
}
