//! The control socket: whole messages in order, and descriptors that travel
//! with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use prost::Message as _;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::HandoverError;
use crate::wire::pb::handover_message::Message;
use crate::wire::pb::{HandoverMessage, HandoverRefusal};

/// Messages looked through for why the other process has ended, and the wait
/// for each.
const LAST_WORDS: usize = 3;
const LAST_WORD: Duration = Duration::from_millis(100);
/// Most descriptors of one message; the kernel takes 253.
pub(super) const MOST_DESCRIPTORS: usize = 250;
/// Longest message, bytes; the kernel takes three times as much.
const LONGEST: usize = 64 * 1024;

/// One end of it. A message that was sent whole arrives whole, descriptors
/// included, or not at all.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Waited for as a stream, but never read or written as one.
    socket: UnixStream,
}

impl Channel {
    /// Both ends: ours, and one for the other process's standard input. Must
    /// run within a tokio runtime.
    pub(super) fn pair() -> Result<(Self, OwnedFd), HandoverError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let failed = HandoverError::io("control socket");
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// The end that this process was started with as its standard input,
    /// which is empty from then on.
    pub(super) fn inherited() -> Result<Self, HandoverError> {
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(HandoverError::io("control socket"))?;
        let null = std::fs::File::open("/dev/null").map_err(HandoverError::io("/dev/null"))?;
        rustix::stdio::dup2_stdin(&null).map_err(HandoverError::io("standard input"))?;
        Self::over(socket)
    }

    fn over(socket: OwnedFd) -> Result<Self, HandoverError> {
        let socket = UnixStream::from_std(socket.into()).map_err(HandoverError::io("control socket"))?;
        Ok(Self { socket })
    }

    /// Sends a message within `limit`; the descriptors stay open here.
    pub(super) async fn send(
        &self,
        message: Message,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), HandoverError> {
        let bytes = HandoverMessage { message: Some(message) }.encode_to_vec();
        let send = self.socket.async_io(Interest::WRITABLE, || {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // A signal instead of an error would end the process.
            Ok(sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        match timeout(limit, send).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.last_word(lost(error)).await),
            Err(_) => Err(HandoverError::Deadline("the control socket is not read")),
        }
    }

    /// Why the other process has ended, where it has said so; else `gone`.
    async fn last_word(&self, gone: HandoverError) -> HandoverError {
        if !matches!(gone, HandoverError::Gone) {
            return gone;
        }
        // The reset comes before what was said.
        for _ in 0..LAST_WORDS {
            match self.next("its last word", LAST_WORD).await {
                Err(refused @ HandoverError::Refused(_)) => return refused,
                Err(HandoverError::Deadline(_)) => break,
                _ => {}
            }
        }
        gone
    }

    /// The next message within `limit`; `step` says what was waited for. A
    /// refusal is an error.
    pub(super) async fn receive(
        &self,
        step: &'static str,
        limit: Duration,
    ) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        match self.next(step, limit).await {
            Err(gone @ HandoverError::Gone) => Err(self.last_word(gone).await),
            received => received,
        }
    }

    async fn next(
        &self,
        step: &'static str,
        limit: Duration,
    ) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        let receive = self.socket.async_io(Interest::READABLE, || {
            let mut bytes = vec![0; LONGEST];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let mut descriptors = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            bytes.truncate(received.bytes);
            Ok((bytes, descriptors, received.flags))
        });
        let (bytes, descriptors, flags) = match timeout(limit, receive).await {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => return Err(lost(error)),
            Err(_) => return Err(HandoverError::Deadline(step)),
        };
        if bytes.is_empty() {
            return Err(HandoverError::Gone);
        }
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(HandoverError::Truncated);
        }
        let message = HandoverMessage::decode(&bytes[..]).ok().and_then(|message| message.message);
        match message {
            Some(Message::Refusal(HandoverRefusal { why })) => Err(HandoverError::Refused(why)),
            Some(message) => Ok((message, descriptors)),
            None => Err(HandoverError::Unexpected("a message of an unknown kind".to_owned())),
        }
    }
}

/// It was reset where the other process had not read everything.
fn lost(error: io::Error) -> HandoverError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HandoverError::Gone,
        _ => HandoverError::io("control socket")(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;
    use crate::wire::pb::{HandoverCommit, HandoverSockets};

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn descriptors_arrive_with_their_message() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::over(theirs).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        file.rewind().unwrap();
        let many = vec![file.as_fd(); MOST_DESCRIPTORS];
        let sockets = Message::Sockets(HandoverSockets { conn_ids: vec![7; MOST_DESCRIPTORS] });
        ours.send(sockets.clone(), &many, SOON).await.unwrap();
        ours.send(Message::Commit(HandoverCommit {}), &[], SOON).await.unwrap();
        let (message, mut descriptors) = theirs.receive("sockets", SOON).await.unwrap();
        assert_eq!((message, descriptors.len()), (sockets, MOST_DESCRIPTORS));
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(
            matches!(theirs.receive("commit", SOON).await, Ok((Message::Commit(_), none)) if none.is_empty())
        );
        drop(ours);
        assert!(matches!(theirs.receive("more", SOON).await, Err(HandoverError::Gone)));
    }

    #[tokio::test]
    async fn silence_meets_the_deadline_and_a_refusal_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::over(theirs).unwrap();
        let silence = ours.receive("hello", Duration::from_millis(20)).await;
        assert!(matches!(silence, Err(HandoverError::Deadline("hello"))));
        let refusal = Message::Refusal(HandoverRefusal { why: "no".to_owned() });
        theirs.send(refusal, &[], SOON).await.unwrap();
        assert!(matches!(ours.receive("hello", SOON).await, Err(HandoverError::Refused(why)) if why == "no"));
    }
}
