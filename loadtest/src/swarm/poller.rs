//! Readiness of many sockets, and a deadline finer than a millisecond.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Events taken at once.
const BATCH: usize = 1024;
/// What names the timer among connections.
const TIMER: u64 = u64::MAX;
/// Shorter waits take the timer: epoll counts in milliseconds.
const COARSE: Duration = Duration::from_millis(20);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Nothing: a reader that does not read.
    Nothing,
    /// Bytes from the server.
    Read,
    /// Room for bytes to the server, or the end of connecting.
    Write,
    /// Both.
    Both,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Nothing => EpollFlags::empty(),
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        }
    }
}

/// One epoll instance and one timer.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    events: Vec<EpollEvent>,
}

impl Poller {
    /// Without a socket.
    pub(crate) fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
                .context("timer")?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER)).context("timer")?;
        Ok(Self { epoll, timer, events: vec![EpollEvent::empty(); BATCH] })
    }

    /// Watches a socket under the name `token`.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        self.epoll.add(socket, EpollEvent::new(interest.flags(), token)).context("epoll")
    }

    /// Watches for something else.
    pub(crate) fn modify(&self, socket: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        self.epoll.modify(socket, &mut EpollEvent::new(interest.flags(), token)).context("epoll")
    }

    /// Waits for events, until `deadline` at most, and appends the name and
    /// whether reading and writing make sense of each socket with one.
    pub(crate) fn wait(&mut self, deadline: Instant, ready: &mut Vec<(u64, bool, bool)>) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = if left.is_zero() {
            EpollTimeout::ZERO
        } else if left < COARSE {
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            self.timer.set(expiration, TimerSetTimeFlags::empty()).context("timer")?;
            EpollTimeout::NONE
        } else {
            EpollTimeout::try_from(left.min(Duration::from_secs(60))).context("timeout")?
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("epoll"),
        };
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let writable = EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        for event in self.events.iter().take(count) {
            if event.data() == TIMER {
                // Expired once: unset, so that it is not told again.
                self.timer.unset().context("timer")?;
                continue;
            }
            let flags = event.events();
            ready.push((event.data(), flags.intersects(readable), flags.intersects(writable)));
        }
        Ok(())
    }
}
