//! What clients ask of the floor, and who does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use tidegate::internal::{Frames, Payload, decode, encode, reply};
use tidegate::proto::{Ack, AckStatus, Custom, Push, SendMessageReq, push, send_message_req};

use super::RAW;

/// What a worker is to do, besides its sockets.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// Send this to every connection but that one.
    FanOut(Arc<[u8]>, Option<Name>),
    /// Send this to that connection.
    Answer(Arc<[u8]>, Name),
    /// Send a frame this often to every connection, and say what it cost.
    Raw(Arc<RawLoop>),
}

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// One worker's.
    One(usize),
    /// Every worker's.
    All,
}

/// A connection: its worker and its place there.
pub(super) type Name = (usize, u64);

/// What waits for a worker, and what wakes it.
pub(super) type Inbox = (Mutex<Vec<Work>>, EventFd);

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    inboxes: Vec<Inbox>,
    seq: AtomicI64,
}

impl Shared {
    /// Of so many workers.
    pub(super) fn new(workers: u32) -> Result<Self> {
        let inbox = |_| {
            let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
            Ok((Mutex::new(Vec::new()), EventFd::from_flags(flags).context("eventfd")?))
        };
        Ok(Self { inboxes: (0..workers).map(inbox).collect::<Result<_>>()?, seq: AtomicI64::new(0) })
    }

    /// Of one worker.
    pub(super) fn inbox(&self, worker: usize) -> Option<&Inbox> {
        self.inboxes.get(worker)
    }

    /// Hands out work, and wakes each worker that got some once.
    pub(super) fn tell(&self, work: &[(To, Work)]) {
        for (number, (inbox, wake)) in self.inboxes.iter().enumerate() {
            let own = |(to, _): &&(To, Work)| *to == To::All || *to == To::One(number);
            let mut own = work.iter().filter(own).map(|(_, work)| work.clone()).peekable();
            if own.peek().is_some() {
                inbox.lock().extend(own);
                let _ = wake.write(1);
            }
        }
    }
}

/// What all workers have spent on the raw loop.
#[derive(Debug)]
pub(super) struct RawLoop {
    /// How often every connection is written to …
    pub(super) times: u32,
    /// … and what.
    pub(super) bytes: Vec<u8>,
    /// Workers that are not done.
    left: AtomicU32,
    cpu_ns: AtomicU64,
    sends: AtomicU64,
    asked_by: Name,
}

impl RawLoop {
    /// As it was asked for: times, frames of a write, bytes of text.
    fn new(shared: &Shared, asked_by: Name, wish: &[u8]) -> Self {
        let wish = String::from_utf8_lossy(wish);
        let mut numbers = wish.split(' ').map(|number| number.parse().unwrap_or(1_u32));
        let mut next = || numbers.next().unwrap_or(1);
        let (times, frames, size) = (next(), next(), next());
        let text = "x".repeat(usize::try_from(size).unwrap_or(0));
        let push = Push { content: Some(push::Content::TextContent(text)), ..example() };
        Self {
            times,
            bytes: encode(&reply("", Payload::Push(push))).repeat(usize::try_from(frames).unwrap_or(1)),
            left: AtomicU32::new(u32::try_from(shared.inboxes.len()).unwrap_or(1)),
            cpu_ns: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            asked_by,
        }
    }

    /// One worker is done; the last one answers.
    pub(super) fn add(&self, spent: Duration, sends: u64) -> Option<(To, Work)> {
        self.cpu_ns.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.sends.fetch_add(sends, Ordering::Relaxed);
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let (ns, sends) = (self.cpu_ns.load(Ordering::Relaxed), self.sends.load(Ordering::Relaxed));
        let payload = format!("{ns} {sends}").into_bytes().into();
        let answer = Custom { topic: RAW.into(), payload, ..Custom::default() };
        let frame: Arc<[u8]> = encode(&reply("", Payload::Custom(answer))).as_ref().into();
        Some((To::One(self.asked_by.0), Work::Answer(frame, self.asked_by)))
    }
}

/// Takes a client's message.
pub(super) fn say(shared: &Shared, from: Name, message: &[u8], work: &mut Vec<(To, Work)>) {
    for frame in Frames::new(message).flatten() {
        match decode(frame).ok().and_then(|envelope| envelope.payload) {
            Some(Payload::Send(request)) => work.extend(send(shared, from, request)),
            Some(Payload::Custom(custom)) if custom.topic == RAW => {
                work.push((To::All, Work::Raw(Arc::new(RawLoop::new(shared, from, &custom.payload)))));
            }
            _ => {}
        }
    }
}

fn send(shared: &Shared, from: Name, request: SendMessageReq) -> [(To, Work); 2] {
    let seq = shared.seq.fetch_add(1, Ordering::Relaxed) + 1;
    let ack = Ack {
        client_msg_id: request.client_msg_id.clone(),
        server_msg_id: seq.to_string(),
        seq,
        status: AckStatus::Stored.into(),
        conversation_id: request.conversation_id.clone(),
        ..Ack::default()
    };
    let content = match request.content {
        Some(send_message_req::Content::TextContent(text)) => Some(push::Content::TextContent(text)),
        _ => None,
    };
    let push = Push {
        conversation_id: request.conversation_id,
        client_msg_id: request.client_msg_id,
        seq,
        content,
        ..example()
    };
    let frame = |payload| -> Arc<[u8]> { encode(&reply("", payload)).as_ref().into() };
    [
        (To::One(from.0), Work::Answer(frame(Payload::Ack(ack)), from)),
        (To::All, Work::FanOut(frame(Payload::Push(push)), Some(from))),
    ]
}

/// As long as a gateway's.
fn example() -> Push {
    Push {
        conversation_id: "g:load-0000000".into(),
        server_msg_id: "7123456789012345678".into(),
        seq: 1,
        epoch: 1_790_000_000_000_000,
        from_user_id: 1_000_000,
        from_device_id: "load".into(),
        client_msg_id: "load-0000000000".into(),
        r#type: 1,
        server_time: 1_790_000_000_000,
        ..Push::default()
    }
}
