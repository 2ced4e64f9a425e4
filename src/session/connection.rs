//! The connection actor.

use std::cell::RefCell;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::event;

use super::Context;
use super::bucket::Bucket;
use super::closing::Closing;
use super::farewell::farewell;
use super::inflow::poll_receive;
use super::outbound::{Written, count_dropped, poll_flush};
use super::receive::Receiver;
use crate::hub::{Ending, HeldConnection, Peer, Stage, Taken};
use crate::telemetry::metrics;
use crate::types::{CloseReason, monotonic_ms, unix_ms};
use crate::wire::{Event, Inbound};

/// Bytes read at a time, into a buffer that the connections of one worker
/// thread share.
const SCRATCH: usize = 64 * 1024;
/// Reads of one turn, before others get theirs.
const READS_PER_TURN: u32 = 4;
/// Sends in flight above which a connection is not read.
const MAX_IN_FLIGHT: u32 = 512;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// A live WebSocket. As a future it ends when the connection has ended; it
/// holds no buffer while nothing is unfinished.
pub(crate) struct Connection {
    /// Shared with the outbox; `None` once it lingers.
    stream: Option<Arc<TcpStream>>,
    peer: Arc<Peer>,
    context: Arc<Context>,
    inbound: Inbound,
    bucket: Bucket,
    closing: Option<Box<Closing>>,
    linger: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The attempt at which a copy of the socket was handed out, and the one
    /// at which it holds still, when only this task writes; 0 = none.
    copied: u32,
    held: u32,
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer.identity).finish_non_exhaustive()
    }
}

impl Connection {
    /// Of an upgraded socket. `inbound` holds what came unfinished with the
    /// handshake.
    #[must_use]
    pub(crate) fn new(
        stream: TcpStream,
        peer: Arc<Peer>,
        context: Arc<Context>,
        inbound: Inbound,
        frames_per_second: Option<u32>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let bucket = Bucket::new(frames_per_second, monotonic_ms());
        Self {
            stream: Some(Arc::new(stream)),
            peer,
            context,
            inbound,
            bucket,
            closing: None,
            linger: None,
            copied: 0,
            // Until it runs for the first time.
            held: u32::MAX,
            _permit: permit,
        }
    }

    /// Goes on with one that held still elsewhere.
    #[must_use]
    pub(crate) fn resume(
        stream: TcpStream,
        context: Arc<Context>,
        held: HeldConnection,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let HeldConnection { peer, unread, fragments: (count, data), tokens } = held;
        let inbound = Inbound::resume(unread, count, data);
        let mut connection = Self::new(stream, peer, context, inbound, None, permit);
        connection.bucket = Bucket::resume(tokens);
        connection
    }

    /// Does its part in a move to another process; returns whether it holds
    /// still. One that is about to end does so first.
    fn holds(&mut self, cx: &TaskContext<'_>) -> bool {
        let (stage, attempt) = self.context.freeze.stage();
        if matches!(stage, Stage::Serve | Stage::Copy)
            && self.held != 0
            && let Some(stream) = &self.stream
        {
            self.held = 0;
            self.peer.outbox.attach(Arc::clone(stream));
        }
        if stage == Stage::Serve || self.closing.is_some() {
            return false;
        }
        if stage == Stage::Over {
            return self.context.freeze.has_moved(self.peer.identity.conn);
        }
        let conn = self.peer.identity.conn;
        if self.copied != attempt
            && let Some(stream) = &self.stream
        {
            self.copied = attempt;
            self.context.freeze.deposit_socket(conn, stream.as_fd().try_clone_to_owned().ok());
        }
        if stage != Stage::Hold {
            return false;
        }
        if self.held != attempt {
            if self.peer.outbox.is_ending() {
                return false;
            }
            self.held = attempt;
            self.peer.outbox.detach();
            let (unread, count, data) = self.inbound.unfinished();
            self.context.freeze.deposit_held(HeldConnection {
                peer: Arc::clone(&self.peer),
                unread: unread.to_vec(),
                fragments: (count, data.to_vec()),
                tokens: self.bucket.parts(),
            });
        }
        // Whoever ends the stage wakes it.
        self.peer.outbox.arm(cx.waker());
        true
    }

    /// Takes a message that came while the client was identified.
    pub(super) fn accept(&mut self, message: &[u8]) {
        if self.closing.is_some() {
            return;
        }
        let mut receiver = Receiver::new(&self.context, &self.peer, &mut self.bucket);
        let _ = receiver.take(Event::Message(message));
        self.closing = receiver.closing;
    }

    /// Takes a Close that came while the client was identified.
    pub(super) fn accept_close(&mut self, code: Option<u16>) {
        self.closing.get_or_insert_with(|| Closing::echo(code));
        self.peer.outbox.end(Ending::of(CloseReason::PeerClosed));
    }

    /// Takes bytes that came with the upgrade request.
    pub(super) fn accept_bytes(&mut self, bytes: &mut [u8]) {
        let Self { inbound, context, peer, bucket, closing, .. } = self;
        receive(inbound, context, peer, bucket, closing, bytes);
    }

    fn turn(&mut self, cx: &mut TaskContext<'_>) -> Poll<CloseReason> {
        let mut reads = 0;
        let mut armed = false;
        loop {
            let mut read = Poll::Pending;
            let gated = self.peer.in_flight() >= MAX_IN_FLIGHT;
            if self.closing.is_none() && !gated {
                read = self.poll_read(cx);
            }
            if let Poll::Ready(ControlFlow::Break(reason)) = read {
                return Poll::Ready(reason);
            }
            // Whatever is queued from then on wakes this task again.
            if !armed || read.is_ready() {
                if let Poll::Ready(reason) = self.poll_write(cx) {
                    return Poll::Ready(reason);
                }
                armed = true;
            }
            if gated && self.peer.in_flight() < MAX_IN_FLIGHT {
                // The answers came before the outbox knew whom to wake.
                continue;
            }
            if read.is_pending() {
                return Poll::Pending;
            }
            reads += 1;
            if reads == READS_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Ready = something was read; breaks when there is nothing more to come.
    fn poll_read(&mut self, cx: &mut TaskContext<'_>) -> Poll<ControlFlow<CloseReason>> {
        let Self { stream, inbound, context, peer, bucket, closing, .. } = self;
        let Some(stream) = stream else {
            return Poll::Ready(ControlFlow::Break(CloseReason::PeerGone));
        };
        SCRATCH_BUFFER.with_borrow_mut(|scratch| match ready!(poll_receive(stream, cx, scratch)) {
            Err(_) | Ok([]) => Poll::Ready(ControlFlow::Break(CloseReason::PeerGone)),
            Ok(bytes) => {
                peer.outbox.disarm();
                receive(inbound, context, peer, bucket, closing, bytes);
                Poll::Ready(ControlFlow::Continue(()))
            }
        })
    }

    /// Ready = all is said, or cannot be.
    fn poll_write(&mut self, cx: &mut TaskContext<'_>) -> Poll<CloseReason> {
        let Some(stream) = &self.stream else { return Poll::Ready(CloseReason::PeerGone) };
        let Taken { mut queue, mut offset, ending } = self.peer.outbox.take(cx.waker());
        if let Some(ending) = ending.filter(|_| self.closing.is_none()) {
            self.closing = Some(Closing::asked(ending));
        }
        if let Some(closing) = self.closing.as_mut().filter(|closing| !closing.said) {
            closing.say(&mut queue, offset);
        }
        if queue.is_empty() {
            return self.closing.as_ref().map_or(Poll::Pending, |closing| Poll::Ready(closing.reason));
        }
        let mut written = Written::default();
        let flushed = poll_flush(stream, &mut queue, &mut offset, cx, &mut written);
        self.peer.outbox.restore(queue, written.bytes, written.frames, offset);
        match flushed {
            Poll::Ready(Ok(())) => self.peer.unstall(),
            Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::PeerGone),
            Poll::Pending if written.moved => self.peer.restall(monotonic_ms()),
            Poll::Pending => self.peer.stall(monotonic_ms()),
        }
        // What is left to say at the end is said lingering, under a deadline.
        self.closing.as_ref().map_or(Poll::Pending, |closing| Poll::Ready(closing.reason))
    }

    /// Out of the hub and the route; the socket lingers for its last bytes.
    fn finish(&mut self, reason: CloseReason) {
        let reason = self.closing.as_ref().map_or(reason, |closing| closing.reason);
        self.context.pipeline.detach(&self.peer, reason);
        if let Some(census) = &self.context.census {
            census.stay(&self.peer, unix_ms());
        }
        metrics().count_closed(reason);
        log(&self.peer, reason);
        let (left, offset) = self.peer.outbox.close();
        count_dropped(&left, reason == CloseReason::SlowConsumer);
        if self.copied != 0 && self.copied == self.context.freeze.stage().1 {
            // The copy keeps it open, here and at the peer.
            if let Some(stream) = self.stream.as_deref().filter(|_| reason.row().code.is_none()) {
                let _ = SockRef::from(stream).shutdown(Shutdown::Both);
            }
            self.context.freeze.deposit_gone(self.peer.identity.conn);
        }
        // The outbox has let go of it.
        let stream = self.stream.take().and_then(Arc::into_inner);
        let sends_close = reason.row().code.is_some();
        self.linger = Some(Box::pin(async move {
            if let Some(stream) = stream.filter(|_| sends_close) {
                let mut skip = usize::try_from(offset).unwrap_or(usize::MAX);
                let last = left.into_iter().map(move |frame| frame.bytes.slice(std::mem::take(&mut skip)..));
                farewell(stream, last).await;
            }
        }));
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.linger.is_none() {
            if this.holds(cx) {
                return Poll::Pending;
            }
            match this.turn(cx) {
                Poll::Pending => {
                    // The stage may have changed before it could be woken.
                    this.holds(cx);
                    return Poll::Pending;
                }
                Poll::Ready(reason) => this.finish(reason),
            }
        }
        this.linger.as_mut().map_or(Poll::Ready(()), |linger| linger.as_mut().poll(cx))
    }
}

impl Drop for Connection {
    /// A runtime that shuts down drops connections that have not ended.
    fn drop(&mut self) {
        if self.linger.is_none() {
            self.context.pipeline.ports().hub.remove(&self.peer);
        }
    }
}

/// Takes bytes off the wire, wherever they were read.
fn receive(
    inbound: &mut Inbound,
    context: &Arc<Context>,
    peer: &Arc<Peer>,
    bucket: &mut Bucket,
    closing: &mut Option<Box<Closing>>,
    bytes: &mut [u8],
) {
    metrics().bytes_in.increment(u64::try_from(bytes.len()).unwrap_or(0));
    let mut receiver = Receiver::new(context, peer, bucket);
    peer.seen(receiver.now_ms);
    let fed = inbound.feed(bytes, context.limits.max_frame_bytes, |event| receiver.take(event));
    peer.set_partial(inbound.is_partial(), receiver.whole, receiver.now_ms);
    *closing = match (fed, receiver.closing) {
        (_, Some(closing)) => Some(closing),
        (Err(violation), None) => Some(Closing::new(violation.close_reason(), &violation.to_string())),
        (Ok(_), None) => None,
    };
    if let Some(closing) = closing {
        // Nothing more is queued for it from now on.
        peer.outbox.end(Ending::of(closing.reason));
    }
}

fn log(peer: &Peer, reason: CloseReason) {
    let (user, device, conn) = (peer.identity.user, &peer.identity.device, peer.identity.conn);
    macro_rules! at {
        ($level:expr) => {
            event!($level, %user, %device, %conn, reason = reason.row().label, "connection closed")
        };
    }
    match reason.row().level {
        tracing::Level::ERROR => at!(tracing::Level::ERROR),
        tracing::Level::WARN => at!(tracing::Level::WARN),
        tracing::Level::INFO => at!(tracing::Level::INFO),
        _ => at!(tracing::Level::DEBUG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every idle connection costs, beside its socket in tokio and its
    /// entries in hub and wheel (`benches/README.md`). A task is allocated in
    /// steps of 128 bytes, of which 96 are tokio's own.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 128, "{}", size_of::<Connection>());
        assert!(size_of::<Peer>() <= 240, "{}", size_of::<Peer>());
    }
}
