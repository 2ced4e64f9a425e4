//! Socket options, each with its reason.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

sockopt_impl!(
    /// Completes `accept` only once the client's request is there.
    DeferAccept, SetOnly, nix::libc::IPPROTO_TCP, nix::libc::TCP_DEFER_ACCEPT, i32, SetStruct<i32>
);

/// Connections the kernel completes ahead of `accept`; cut by
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A silent connect wakes nobody for this long, seconds.
const DEFER_ACCEPT_S: i32 = 2;
/// How long written bytes may stay unacknowledged before the kernel gives the
/// peer up. Longer than any reader may stall: that case has its own answer.
const USER_TIMEOUT: Duration = Duration::from_secs(120);
/// Unsent bytes the kernel holds before it calls the socket writable again:
/// a slow reader's backlog stays in the outbox, where it is bounded.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Heartbeats find dead peers sooner; this is for those behind a proxy that
/// answers for them.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// A bound socket that does not listen yet: a connect is refused, not left
/// waiting, until the gateway can serve it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    /// Binds; port 0 draws one.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the last run.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        setsockopt(&socket, DeferAccept, &DEFER_ACCEPT_S)?;
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The address it got.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))
    }

    /// Begins to accept.
    pub(crate) fn listen(self) -> io::Result<std::net::TcpListener> {
        self.socket.listen(BACKLOG)?;
        Ok(self.socket.into())
    }
}

/// Sets on a listener what every socket accepted from it is to have: Linux
/// hands all of it on, which saves six calls for each of them.
pub(crate) fn tune(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_is_accepted_is_tuned_like_its_listener() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap();
        let listener = TcpListener::from_std(listener.listen().unwrap()).unwrap();
        tune(&listener).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        // A connect alone is not accepted for a while.
        tokio::io::AsyncWriteExt::write_all(&mut client, b"x").await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
    }
}
