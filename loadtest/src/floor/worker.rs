//! The floor's threads: each has its own listener, its own connections, and a
//! queue of frames that go to all of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tidegate::internal::{Frames, Payload, decode, encode, reply};
use tidegate::proto::{Ack, AckStatus, Custom, Push, SendMessageReq, push, send_message_req};

use super::guest::Guest;
use super::{COALESCED, RAW};
use crate::process::own_thread;

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const BACKLOG: i32 = 4096;
const BATCH: usize = 1024;

/// What a worker is to do, besides its sockets.
#[derive(Debug, Clone)]
enum Work {
    /// Send this to every connection but that one.
    FanOut(Arc<[u8]>, Option<Name>),
    /// Send this to that connection.
    Answer(Arc<[u8]>, Name),
    /// Send a frame this often to every connection, and say what it cost.
    Raw(Arc<RawLoop>),
}

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    One(usize),
    All,
}

/// A connection: its worker and its place there.
type Name = (usize, u64);

/// What all workers have spent on the raw loop.
#[derive(Debug)]
struct RawLoop {
    times: u32,
    bytes: Vec<u8>,
    left: AtomicU32,
    cpu_ns: AtomicU64,
    sends: AtomicU64,
    asked_by: Name,
}

#[derive(Debug)]
struct Shared {
    inboxes: Vec<(Mutex<Vec<Work>>, EventFd)>,
    seq: AtomicI64,
}

struct Worker {
    number: usize,
    shared: Arc<Shared>,
    epoll: Epoll,
    listener: TcpListener,
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
}

/// Starts the threads; returns where they listen.
pub(super) fn start(workers: u32) -> Result<SocketAddr> {
    let inboxes = (0..workers)
        .map(|_| {
            let wake =
                EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).context("eventfd")?;
            Ok((Mutex::new(Vec::new()), wake))
        })
        .collect::<Result<Vec<_>>>()?;
    let shared = Arc::new(Shared { inboxes, seq: AtomicI64::new(0) });
    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut all = Vec::new();
    for number in 0..usize::try_from(workers)? {
        let worker = Worker::new(number, Arc::clone(&shared), address)?;
        address = worker.listener.local_addr()?;
        all.push(worker);
    }
    for mut worker in all {
        std::thread::Builder::new().name(format!("floor-{}", worker.number)).spawn(move || worker.run())?;
    }
    Ok(address)
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
}

impl Shared {
    /// Hands out work, and wakes each worker that got some once.
    fn tell(&self, work: &[(To, Work)]) {
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

impl Worker {
    fn new(number: usize, shared: Arc<Shared>, address: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).context("socket")?;
        // Spreads connections over the workers, without a word between them.
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into()).context("bind")?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        if let Some((_, wake)) = shared.inboxes.get(number) {
            epoll.add(wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        }
        Ok(Self { number, shared, epoll, listener, guests: Vec::new(), free: Vec::new() })
    }

    fn run(&mut self) {
        let mut events = vec![EpollEvent::empty(); BATCH];
        let mut scratch = vec![0; 64 * 1024];
        loop {
            let count = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in events.iter().take(count) {
                match event.data() {
                    LISTENER => self.accept(),
                    WAKE => self.work(),
                    name => self.serve(name, &mut scratch),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let place = self.free.pop().unwrap_or(self.guests.len());
            let _ = stream.set_nonblocking(true);
            let name = u64::try_from(place).unwrap_or(0);
            if self.epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, name)).is_err() {
                continue;
            }
            if place == self.guests.len() {
                self.guests.push(None);
            }
            if let Some(slot) = self.guests.get_mut(place) {
                *slot = Some(Guest::new(stream));
            }
        }
    }

    fn serve(&mut self, name: u64, scratch: &mut [u8]) {
        let Ok(place) = usize::try_from(name) else { return };
        let Some(Some(guest)) = self.guests.get_mut(place) else { return };
        let (shared, own) = (&self.shared, (self.number, name));
        let was_behind = guest.is_behind();
        let mut work = Vec::new();
        let outcome =
            guest.flush().and_then(|()| guest.read(scratch, |message| say(shared, own, message, &mut work)));
        // What was read together is told together.
        shared.tell(&work);
        if outcome.is_err() {
            self.leave(place);
        } else if guest.is_behind() != was_behind {
            watch(&self.epoll, guest, name);
        }
    }

    fn leave(&mut self, place: usize) {
        if let Some(slot) = self.guests.get_mut(place) {
            *slot = None;
            self.free.push(place);
        }
    }

    /// Everything in the inbox: frames for everybody, as many as may be in one
    /// write, and answers.
    fn work(&mut self) {
        let Some((inbox, wake)) = self.shared.inboxes.get(self.number) else { return };
        let _ = wake.read();
        let work = std::mem::take(&mut *inbox.lock());
        let mut together: Vec<(Arc<[u8]>, Option<Name>)> = Vec::new();
        for one in work {
            match one {
                Work::FanOut(frame, but) => {
                    together.push((frame, but));
                    if together.len() == COALESCED {
                        self.fan_out(&std::mem::take(&mut together));
                    }
                }
                Work::Answer(frame, to) => self.write(to.1, &frame),
                Work::Raw(tally) => self.raw(&tally),
            }
        }
        self.fan_out(&together);
    }

    fn fan_out(&mut self, frames: &[(Arc<[u8]>, Option<Name>)]) {
        let Some((_, but)) = frames.first() else { return };
        let bytes = frames.iter().flat_map(|(frame, _)| frame.iter().copied()).collect::<Vec<u8>>();
        let but = but.filter(|(worker, _)| *worker == self.number).map(|(_, name)| name);
        for name in (0_u64..).take(self.guests.len()) {
            if Some(name) != but {
                self.write(name, &bytes);
            }
        }
    }

    fn write(&mut self, name: u64, bytes: &[u8]) {
        let Ok(place) = usize::try_from(name) else { return };
        let Some(Some(guest)) = self.guests.get_mut(place) else { return };
        if !guest.is_upgraded() {
            return;
        }
        let was_behind = guest.is_behind();
        if guest.write(bytes).is_err() {
            self.leave(place);
        } else if guest.is_behind() != was_behind {
            watch(&self.epoll, guest, name);
        }
    }

    /// Nothing but sends of the same bytes, back to back.
    fn raw(&mut self, tally: &RawLoop) {
        let (begin, mut sends) = (own_thread(), 0_u64);
        for _ in 0..tally.times {
            for guest in self.guests.iter_mut().flatten() {
                sends += u64::from(guest.write(&tally.bytes).is_ok());
            }
        }
        let spent = own_thread().saturating_sub(begin);
        tally.cpu_ns.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        tally.sends.fetch_add(sends, Ordering::Relaxed);
        for (name, guest) in (0_u64..).zip(&self.guests) {
            if let Some(guest) = guest.as_ref().filter(|guest| guest.is_behind()) {
                watch(&self.epoll, guest, name);
            }
        }
        if tally.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let cost =
                format!("{} {}", tally.cpu_ns.load(Ordering::Relaxed), tally.sends.load(Ordering::Relaxed));
            let answer = Custom { topic: RAW.into(), payload: cost.into_bytes().into(), ..Custom::default() };
            let frame: Arc<[u8]> = encode(&reply("", Payload::Custom(answer))).as_ref().into();
            let answer = Work::Answer(frame, tally.asked_by);
            self.shared.tell(&[(To::One(tally.asked_by.0), answer)]);
        }
    }
}

/// Takes a client's message.
fn say(shared: &Shared, from: Name, message: &[u8], work: &mut Vec<(To, Work)>) {
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

fn watch(epoll: &Epoll, guest: &Guest, name: u64) {
    let mut flags = EpollFlags::EPOLLIN;
    flags.set(EpollFlags::EPOLLOUT, guest.is_behind());
    let _ = epoll.modify(guest.stream.as_fd(), &mut EpollEvent::new(flags, name));
}
