//! From an accepted socket to a running [`Connection`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::debug;

use super::Context;
use super::connection::Connection;
use super::dispatch::Fatal;
use super::farewell::farewell;
use super::identify::{Opening, read_opening};
use crate::census::Sighting;
use crate::hub::{Frame, PeerIdentity};
use crate::store::Conversations;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{CloseReason, unix_ms};
use crate::wire::pb::{ErrorCode, Ready};
use crate::wire::{Payload, close_frame, encode, error, reply};
use crate::ws::auth::{AuthMode, Identity};
use crate::ws::handshake::{HandshakeError, Refusal, Upgrade};

/// How long a client has to name itself, or its positions, after the upgrade.
const IDENTIFY: Duration = Duration::from_secs(5);
/// How long the 101 waits for `Ready`, to leave with it in one write.
const TOGETHER: Duration = Duration::from_millis(100);

/// Serves one accepted socket: handshake, credentials, bind, `Ready`; then the
/// connection runs in a task of its own and this one ends.
pub(crate) async fn establish(
    context: Arc<Context>,
    mut stream: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let started = Instant::now();
    let _establishing = Establishing::new(&context);
    let shaken = tokio::select! {
        shaken = timeout(context.limits.handshake, shake(&context, &mut stream)) => shaken,
        () = context.stopping.cancelled() => return refuse(stream, &Refusal::stopping()).await,
    };
    let mut shaken = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(HandshakeError::Refused(refusal))) => {
            let unauthenticated = refusal.status.starts_with("401");
            let m = metrics();
            if unauthenticated { &m.handshake_unauthenticated } else { &m.handshake_refused }.increment(1);
            debug!(%from, status = refusal.status, reason = refusal.message, "handshake refused");
            return refuse(stream, &refusal).await;
        }
        Ok(Err(HandshakeError::Io(error))) => {
            metrics().handshake_error.increment(1);
            debug!(%from, %error, "handshake failed");
            return;
        }
        Err(_) => {
            metrics().handshake_timeout.increment(1);
            return refuse(stream, &Refusal::timeout()).await;
        }
    };
    let head = std::mem::take(&mut shaken.head);
    let named = tokio::select! {
        named = name(&context, &mut stream, shaken) => named,
        () = context.stopping.cancelled() => Err((CloseReason::Shutdown, String::new())),
    };
    match named {
        // Whoever is attached from here on is asked to leave like all others.
        Ok(_) if context.stopping.is_cancelled() => {
            part(stream, head, CloseReason::Shutdown, CloseReason::Shutdown.row().text).await;
        }
        Ok((identity, opening)) => {
            let arrival = Arrival { stream, head, from, identity, opening, permit, started };
            run(context, arrival).await;
        }
        Err((reason, text)) => {
            let m = metrics();
            match reason {
                CloseReason::Unauthenticated => &m.handshake_unauthenticated,
                _ => &m.handshake_error,
            }
            .increment(1);
            m.count_closed(reason);
            debug!(%from, reason = reason.row().label, "not identified");
            let text = if text.is_empty() { reason.row().text } else { &text };
            part(stream, head, reason, text).await;
        }
    }
}

/// Counted as long as it lives.
struct Establishing(Arc<Context>);

impl Establishing {
    fn new(context: &Arc<Context>) -> Self {
        context.establishing.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(context))
    }
}

impl Drop for Establishing {
    fn drop(&mut self) {
        self.0.establishing.fetch_sub(1, Ordering::AcqRel);
    }
}

/// After the upgrade.
struct Shaken {
    /// The 101, unless it was sent.
    head: Vec<u8>,
    identity: Option<Identity>,
    device: Option<String>,
    resume: bool,
    early: Vec<u8>,
}

async fn shake(context: &Context, stream: &mut TcpStream) -> Result<Shaken, HandshakeError> {
    let upgrade = Upgrade::read(stream, &context.origins).await?;
    let device = upgrade.device.as_deref();
    let identity = match (context.authenticator.mode(), &upgrade.token) {
        (AuthMode::None, _) => Some(context.authenticator.anonymous(upgrade.user.as_deref(), device)),
        (AuthMode::Jwt, Some(token)) => Some(context.authenticator.verify(token, device)),
        (AuthMode::Jwt, None) => None,
    };
    let identity = identity.transpose().map_err(|error| {
        metrics().count_auth_failure(error.label());
        Refusal::unauthorized(error.to_string())
    })?;
    let (device, resume) = (upgrade.device.clone(), upgrade.resume);
    let (mut head, early) = upgrade.into_parts();
    if identity.is_none() || resume {
        // It is waited for what the client says behind it.
        stream.write_all(&std::mem::take(&mut head)).await?;
    }
    Ok(Shaken { head, identity, device, resume, early })
}

/// Waits for the `Identify` where there must be one.
async fn name(
    context: &Context,
    stream: &mut TcpStream,
    shaken: Shaken,
) -> Result<(Identity, Opening), Fatal> {
    let Shaken { identity, device, resume, early, .. } = shaken;
    let mut opening = Opening::default();
    let max_message = context.limits.max_frame_bytes;
    if let Some(identity) = identity {
        if resume {
            // A client that does not say what it has is served without.
            let read = timeout(IDENTIFY, read_opening(stream, &mut opening, early, max_message)).await;
            read.unwrap_or(Ok(()))?;
        } else {
            opening.early = early;
        }
        return goes_on(stream, opening).await.map(|opening| (identity, opening));
    }
    let unauthenticated = |text: &str| (CloseReason::Unauthenticated, text.to_owned());
    match timeout(IDENTIFY, read_opening(stream, &mut opening, early, max_message)).await {
        Ok(read) => read?,
        Err(_) => return Err(unauthenticated("no identify in time")),
    }
    let opening = goes_on(stream, opening).await?;
    let Some(identify) = &opening.identify else {
        return Err(unauthenticated("the first frame must be identify"));
    };
    let device = Some(identify.device_id.clone()).filter(|id| !id.is_empty()).or(device);
    match context.authenticator.verify(&identify.token, device.as_deref()) {
        Ok(identity) => Ok((identity, opening)),
        Err(refused) => {
            metrics().count_auth_failure(refused.label());
            let text = refused.to_string();
            let error = error(ErrorCode::Unauthenticated, text.clone());
            // The close says it too; this one says it to programs.
            let _ = stream.write_all(&encode(&reply("", Payload::Error(error)))).await;
            Err((CloseReason::Unauthenticated, text))
        }
    }
}

/// A client that said nothing but goodbye is answered and gone; one that said
/// something first is served, and the goodbye comes last.
async fn goes_on(stream: &mut TcpStream, opening: Opening) -> Result<Opening, Fatal> {
    match opening.close {
        Some(code) if opening.identify.is_none() && opening.backlog.is_empty() => {
            // It leaves: whether it reads this is its own affair.
            let _ = stream.write_all(&close_frame(code.unwrap_or(1000), "")).await;
            Err((CloseReason::PeerGone, String::new()))
        }
        _ => Ok(opening),
    }
}

/// A client whose name is known.
struct Arrival {
    stream: TcpStream,
    /// See [`Shaken`].
    head: Vec<u8>,
    from: SocketAddr,
    identity: Identity,
    opening: Opening,
    permit: OwnedSemaphorePermit,
    started: Instant,
}

async fn run(context: Arc<Context>, arrival: Arrival) {
    let Arrival { mut stream, mut head, from, identity, mut opening, permit, started } = arrival;
    let identity = PeerIdentity {
        conn: context.next_conn(),
        user: identity.user,
        device: identity.device,
        expires_at: identity.expires_at.unwrap_or(PeerIdentity::NEVER),
    };
    let mut attaching = pin!(context.pipeline.attach(identity));
    let attached = match timeout(TOGETHER, attaching.as_mut()).await {
        Ok(attached) => attached,
        Err(_) => {
            // A socket that fails is noticed by its connection.
            let _ = stream.write_all(&std::mem::take(&mut head)).await;
            attaching.await
        }
    };
    let peer = attached.peer;
    let ready = Payload::Ready(ready(&context, &peer.identity, attached.conversations));
    let have = opening.identify.as_ref().map(|identify| identify.have.as_slice()).unwrap_or_default();
    let mut start = attached.start;
    let replay = context.pipeline.ports().resume(peer.identity.user, have, &mut start).await;
    // Before whatever came live since the connection became reachable.
    let first = [head.as_slice(), &encode(&reply("", ready))].concat();
    let frames = replay.into_iter().map(|payload| encode(&reply("", payload)));
    let frames = std::iter::once(first.into()).chain(frames);
    let front = frames.map(|bytes| Frame::control(bytes, FrameKind::Other)).collect();
    context.pipeline.ports().open(&peer, front, start);
    if let Some(census) = &context.census {
        let unsaid = BTreeMap::new();
        census.seen(Sighting {
            user: Some(peer.identity.user),
            install: None,
            client: opening.identify.as_ref().map_or(&unsaid, |identify| &identify.client),
            address: Some(from.ip()),
            at: unix_ms(),
        });
    }
    metrics().presence.sighted_connection.increment(1);
    metrics().handshake_ok.increment(1);
    metrics().handshake_seconds.record(started.elapsed());
    let spared = from.ip().to_canonical().is_loopback() && !context.limits.limit_loopback;
    let rate = context.limits.frames_per_second.filter(|_| !spared);
    let mut connection =
        Connection::new(stream, Arc::clone(&peer), Arc::clone(&context), opening.inbound, rate, permit);
    for message in opening.backlog {
        connection.accept(&message);
    }
    if let Some(code) = opening.close {
        connection.accept_close(code);
    }
    if !opening.early.is_empty() {
        connection.accept_bytes(&mut opening.early);
    }
    tokio::spawn(connection);
    // The wheel has room for every connection; it ends before its sender only
    // when the gateway does.
    let _ = context.arrivals.send(peer).await;
}

fn ready(context: &Context, identity: &PeerIdentity, conversations: Conversations) -> Ready {
    let interval = u32::try_from(context.heartbeat.as_millis()).unwrap_or(u32::MAX);
    Ready {
        session_id: format!("{}-{}", context.pipeline.ports().own.epoch, identity.conn),
        gateway_id: context.gateway.to_string(),
        server_time: unix_ms(),
        heartbeat_interval_ms: interval,
        first_heartbeat_ms: fastrand::u32(1..=interval.max(1)),
        max_frame_bytes: u32::try_from(context.limits.max_frame_bytes).unwrap_or(u32::MAX),
        conversations: conversations.positions,
        has_more: conversations.has_more,
        user_id: identity.user.get(),
        device_id: identity.device.to_string(),
    }
}

async fn refuse(stream: TcpStream, refusal: &Refusal) {
    farewell(stream, [refusal.to_bytes().into()]).await;
}

async fn part(stream: TcpStream, head: Vec<u8>, reason: CloseReason, text: &str) {
    if let Some(code) = reason.row().code {
        farewell(stream, [head.into(), close_frame(code, text)]).await;
    }
}
