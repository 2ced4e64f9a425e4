//! Many clients on one thread.
//!
//! A [`Swarm`] holds sockets by number and is driven by [`Swarm::turn`]: it
//! waits, reads what is there and hands over what the server said, in order
//! and with the time of the read. Clients are answered between two turns. An
//! idle client costs some 80 bytes here; the kernel's buffers come on top.

mod connection;
mod opening;
mod poller;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

use self::connection::{Connection, Stage};
pub(crate) use self::opening::{Opened, Opening};
use self::poller::{Interest, Poller};
use crate::frame::HEARTBEAT;
use crate::scan::Seen;
use crate::target::{Targets, source};

/// Read at once.
const SCRATCH: usize = 64 * 1024;

/// Shorter than what any gateway takes for silence.
const BEAT: Duration = Duration::from_secs(20);

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// By the server.
    Said(Seen<'a>),
    /// That its connection is no more, and why. Not told of what
    /// [`Swarm::close`] ended.
    Gone(&'a Error),
}

/// Clients by number.
#[derive(Debug)]
pub(crate) struct Swarm {
    poller: Poller,
    connections: Vec<Option<Connection>>,
    scratch: Vec<u8>,
    ready: Vec<(u64, bool, bool)>,
    /// Ended while something was written to them.
    lost: Vec<(u32, Error)>,
    open: usize,
    receive: Option<usize>,
    /// When all say next that they live.
    beat: Instant,
}

impl Swarm {
    /// Nobody.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            connections: Vec::new(),
            scratch: vec![0; SCRATCH],
            ready: Vec::new(),
            lost: Vec::new(),
            open: 0,
            receive: None,
            beat: Instant::now() + BEAT,
        })
    }

    /// Sockets there are, served or not.
    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    /// Bounds the kernel's receive buffer, bytes, of clients that connect from
    /// here on.
    pub(crate) const fn set_receive_buffer(&mut self, bytes: Option<usize>) {
        self.receive = bytes;
    }

    /// Begins to connect client `index` to where its turn is, and to upgrade
    /// by `request`.
    pub(crate) fn connect(&mut self, index: u32, targets: &Targets, request: &[u8]) -> Result<()> {
        let to = targets.address(index)?;
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))
            .context("socket")?;
        if let Some(bytes) = self.receive {
            socket.set_recv_buffer_size(bytes).context("receive buffer")?;
        }
        if let Some(from) = source(to) {
            setsockopt(&socket, IpBindAddressNoPort, &true).context("source address")?;
            socket.bind(&from.into()).with_context(|| format!("source address {from}"))?;
        }
        let stage = match socket.connect(&to.into()) {
            Ok(()) => Stage::Upgrading,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Stage::Connecting,
            Err(error) => return Err(error).with_context(|| format!("connecting to {to}")),
        };
        socket.set_tcp_nodelay(true).context("nodelay")?;
        let mut connection = Connection::new(TcpStream::from(socket), stage, Vec::new());
        connection.write(request)?;
        connection.interest = connection.wanted();
        let place = usize::try_from(index)?;
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        self.poller.add(&connection.stream, u64::from(index), connection.interest)?;
        if let Some(slot) = self.connections.get_mut(place)
            && slot.replace(connection).is_none()
        {
            self.open += 1;
        }
        Ok(())
    }

    /// Sends `bytes` as client `index`; what the kernel does not take is kept
    /// and sent when it does. Sends to a client that is gone vanish.
    pub(crate) fn send(&mut self, index: u32, bytes: &[u8]) -> Result<()> {
        let Some(connection) = self.at(index) else { return Ok(()) };
        match connection.write(bytes) {
            Ok(()) => self.watch(index),
            Err(error) => {
                self.close(index);
                self.lost.push((index, error));
                Ok(())
            }
        }
    }

    /// To be called often: now and then everybody says that he lives, since a
    /// client that is silent for long is let go.
    pub(crate) fn keep_alive(&mut self) -> Result<()> {
        if Instant::now() < self.beat {
            return Ok(());
        }
        self.beat = Instant::now() + BEAT;
        for index in 0..u32::try_from(self.connections.len())? {
            if self.at(index).is_some_and(|connection| connection.stage == Stage::Served) {
                self.send(index, &HEARTBEAT)?;
            }
        }
        Ok(())
    }

    /// Client `index` stops reading, or begins again.
    pub(crate) fn set_deaf(&mut self, index: u32, deaf: bool) -> Result<()> {
        if let Some(connection) = self.at(index) {
            connection.deaf = deaf;
        }
        self.watch(index)
    }

    /// The ports all clients connect from, by client.
    pub(crate) fn ports(&self) -> Vec<Option<u16>> {
        let port = |connection: &Connection| connection.stream.local_addr().ok().map(|from| from.port());
        self.connections.iter().map(|connection| connection.as_ref().and_then(port)).collect()
    }

    /// Client `index` leaves without a word.
    pub(crate) fn close(&mut self, index: u32) {
        let slot = usize::try_from(index).ok().and_then(|place| self.connections.get_mut(place));
        if slot.is_some_and(|slot| slot.take().is_some()) {
            self.open -= 1;
        }
    }

    /// All leave.
    pub(crate) fn clear(&mut self) {
        self.connections = Vec::new();
        self.lost.clear();
        self.open = 0;
    }

    /// Waits until `deadline` at most, then hands over what clients are told.
    /// Returns early when there was something.
    pub(crate) fn turn(
        &mut self,
        deadline: Instant,
        mut sink: impl FnMut(u32, Instant, Told<'_>),
    ) -> Result<()> {
        for (index, error) in std::mem::take(&mut self.lost) {
            sink(index, Instant::now(), Told::Gone(&error));
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(deadline, &mut ready)?;
        for (token, readable, writable) in ready.drain(..) {
            let index = u32::try_from(token)?;
            let mut scratch = std::mem::take(&mut self.scratch);
            let at = Instant::now();
            let outcome = match self.at(index) {
                None => Ok(()),
                Some(connection) => {
                    connection.serve(readable, writable, &mut scratch, &mut |told| sink(index, at, told))
                }
            };
            self.scratch = scratch;
            match outcome {
                Ok(()) => self.watch(index)?,
                Err(error) => {
                    self.close(index);
                    sink(index, at, Told::Gone(&error));
                }
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn at(&mut self, index: u32) -> Option<&mut Connection> {
        usize::try_from(index).ok().and_then(|place| self.connections.get_mut(place))?.as_mut()
    }

    /// Tells the kernel what client `index` waits for, where that changed.
    fn watch(&mut self, index: u32) -> Result<()> {
        let Some(connection) = usize::try_from(index)
            .ok()
            .and_then(|place| self.connections.get_mut(place))
            .and_then(Option::as_mut)
        else {
            return Ok(());
        };
        let wanted = connection.wanted();
        if wanted != connection.interest {
            connection.interest = wanted;
            self.poller.modify(&connection.stream, u64::from(index), wanted)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Does what its socket is ready for.
    fn serve(
        &mut self,
        readable: bool,
        writable: bool,
        scratch: &mut [u8],
        sink: &mut impl FnMut(Told<'_>),
    ) -> Result<()> {
        if writable && self.interest != Interest::Read {
            if self.stage == Stage::Connecting {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error.into());
                }
                self.stage = Stage::Upgrading;
            }
            self.flush()?;
        }
        if readable && self.interest != Interest::Write {
            self.read(scratch, sink)?;
        }
        Ok(())
    }
}
