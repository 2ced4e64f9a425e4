//! What a fan-out takes of a connection itself: its socket's descriptor, to
//! write to, and its memory, before it is needed.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::net::TcpStream;

/// What does not go at once does not go, and a peer that is gone is no signal.
const NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One connection's socket. The system is asked without the C library, which
/// asks for each call whether its thread is to be cancelled.
#[derive(Debug)]
pub(super) struct Direct {
    /// Its descriptor, so that nobody waits for the memory of the socket to
    /// learn of it.
    descriptor: BorrowedFd<'static>,
    /// Keeps that open.
    _socket: Arc<TcpStream>,
}

impl Direct {
    #[expect(unsafe_code, reason = "a descriptor and what keeps it open, side by side")]
    pub(super) fn new(socket: Arc<TcpStream>) -> Self {
        // SAFETY: the socket lives as long as this does and closes its
        // descriptor when it is dropped; nobody can take that out of it while it
        // is shared; and no copy of the borrowed one leaves this.
        let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        Self { descriptor, _socket: socket }
    }

    /// Returns how many of these bytes left. An error is found by the
    /// connection's task, and so is a socket that is full.
    pub(super) fn send(&self, bytes: &[u8]) -> usize {
        send(self.descriptor, bytes, NOW).unwrap_or(0)
    }

    /// The same of several pieces.
    pub(super) fn send_all(&self, pieces: &[IoSlice<'_>]) -> usize {
        sendmsg(self.descriptor, pieces, &mut SendAncillaryBuffer::default(), NOW).unwrap_or(0)
    }
}

/// Asks for memory that is looked at soon, and does not wait for it: a line of
/// 64 bytes, the one that this begins in. On x86-64; elsewhere it is looked at
/// when it is.
#[inline]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "no reading of it, as far as it is a hint"))]
pub(super) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = std::ptr::from_ref(what).cast::<i8>();
        // SAFETY: nothing is read that the program could see, and no address is
        // wrong for it; every processor of this kind has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream as StdStream};

    use super::*;

    #[tokio::test]
    async fn the_socket_is_open_for_as_long_as_it_is_written_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let socket = Arc::new(TcpStream::from_std(server).unwrap());
        let direct = Direct::new(Arc::clone(&socket));
        drop(socket);
        assert_eq!(direct.send(b"one"), 3);
        assert_eq!(direct.send_all(&[IoSlice::new(b"tw"), IoSlice::new(b"o")]), 3);
        drop(direct);
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "onetwo", "all of it, and then the end");
    }

    #[test]
    fn memory_that_is_asked_for_is_as_it_was() {
        let some = vec![7_u64; 1_000];
        some.iter().for_each(prefetch);
        assert!(some.iter().all(|&one| one == 7));
    }

    #[tokio::test]
    async fn who_is_gone_is_no_signal_and_no_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let direct = Direct::new(Arc::new(TcpStream::from_std(server).unwrap()));
        drop(client);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while direct.send(b"x") > 0 {
            assert!(std::time::Instant::now() < deadline, "it is never found to be gone");
            tokio::task::yield_now().await;
        }
    }
}
