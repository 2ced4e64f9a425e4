//! The floor's threads: each has its own listener, its own connections, and a
//! queue of frames that go to all of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::COALESCED;
use super::guest::Guest;
use super::work::{Name, RawLoop, Shared, Work, say};
use crate::process::own_thread;

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const BACKLOG: i32 = 4096;
const BATCH: usize = 1024;

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
    let shared = Arc::new(Shared::new(workers)?);
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
        if let Some((_, wake)) = shared.inbox(number) {
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
        let Some((inbox, wake)) = self.shared.inbox(self.number) else { return };
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
        for (name, guest) in (0_u64..).zip(&self.guests) {
            if let Some(guest) = guest.as_ref().filter(|guest| guest.is_behind()) {
                watch(&self.epoll, guest, name);
            }
        }
        if let Some(answer) = tally.add(spent, sends) {
            self.shared.tell(&[answer]);
        }
    }
}

fn watch(epoll: &Epoll, guest: &Guest, name: u64) {
    let mut flags = EpollFlags::EPOLLIN;
    flags.set(EpollFlags::EPOLLOUT, guest.is_behind());
    let _ = epoll.modify(guest.stream.as_fd(), &mut EpollEvent::new(flags, name));
}
