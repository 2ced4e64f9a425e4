//! Telling systemd, or whoever supervises the process, where it stands.
//!
//! The protocol is one datagram to the socket that `NOTIFY_SOCKET` names;
//! without that nobody wants to know.

use std::ffi::OsString;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

/// Longest the supervisor may take to have read everything.
const BARRIER: Duration = Duration::from_secs(5);

/// Whoever started this process, if it wants to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervisor {
    address: Option<SocketAddrUnix>,
}

impl Supervisor {
    /// The one that the environment names.
    #[must_use]
    pub(crate) fn from_env() -> Self {
        Self::at(std::env::var_os("NOTIFY_SOCKET"))
    }

    fn at(path: Option<OsString>) -> Self {
        let address = path.filter(|path| !path.is_empty()).and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok(),
            path => SocketAddrUnix::new(path).ok(),
        });
        Self { address }
    }

    /// The process serves.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// It is about to end. Never said in a hot restart: it is final.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// What it is at.
    pub(crate) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The service is another process from now on. Returns once that was
    /// read: whoever ends before is taken for the service that has ended.
    pub(crate) async fn hand_over(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\nREADY=1\nSTATUS=serving, taken over by process {pid}"));
        if self.address.is_some() {
            let supervisor = self.clone();
            let barrier = tokio::task::spawn_blocking(move || supervisor.barrier());
            match tokio::time::timeout(BARRIER, barrier).await {
                Ok(Ok(Ok(()))) => {}
                _ => tracing::warn!("the supervisor did not confirm the new process"),
            }
        }
    }

    fn tell(&self, text: &str) {
        if let Err(error) = self.send(text, &[]) {
            tracing::warn!(%error, "the supervisor cannot be told");
        }
    }

    /// Waits until everything sent before was read: only then the other end of
    /// the pipe that goes along is closed.
    fn barrier(&self) -> io::Result<()> {
        let (ours, theirs) = io::pipe()?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let mut ours = ours;
        ours.read(&mut [0]).map(drop)
    }

    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let socket: OwnedFd =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg_addr(&socket, address, &text, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn read(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_supervisor_follows_to_the_new_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let supervisor = Supervisor::at(Some(path.into_os_string()));
        supervisor.ready();
        assert_eq!(read(&socket), "READY=1\nSTATUS=serving");
        let handing = tokio::spawn(async move { supervisor.hand_over(4711).await });
        let (said, barrier) = tokio::task::spawn_blocking(move || {
            // The descriptor of the barrier is not taken, and so closed.
            (read(&socket), read(&socket))
        })
        .await
        .unwrap();
        assert!(said.starts_with("MAINPID=4711\nREADY=1\n"), "{said}");
        assert_eq!(barrier, "BARRIER=1");
        tokio::time::timeout(Duration::from_secs(4), handing).await.expect("in time").unwrap();
    }

    #[test]
    fn without_one_nothing_is_said() {
        Supervisor::at(None).ready();
        assert!(Supervisor::at(Some("@abstract".into())).address.is_some());
    }
}
