//! The reading half of a connection.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there into `scratch`; Ready with nothing = the peer has ended.
/// A socket that gave less than there was room for is empty: that is not
/// asked for with another call.
pub(super) fn poll_receive<'a>(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    scratch: &'a mut [u8],
) -> Poll<io::Result<&'a mut [u8]>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut got = None;
        let filled = stream.try_io(Interest::READABLE, || {
            let size = recv(stream.as_raw_fd(), scratch, MsgFlags::empty())?;
            got = Some(size);
            // Told to the readiness, as if the next call had been made.
            if size > 0 && size < scratch.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (got, filled) {
            (Some(size), _) => return Poll::Ready(Ok(scratch.get_mut(..size).unwrap_or_default())),
            // Not ready after all: once more, to be woken.
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
            (None, Ok(())) => {}
        }
    }
}
