//! Against real sockets.

use std::io::Read;
use std::net::{TcpListener, TcpStream as StdStream};
use std::sync::Arc;
use std::task::Waker;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::*;
use crate::hub::{Class, Frame, PeerIdentity, Start};
use crate::message::Mark;
use crate::types::{ConnId, ConversationId, DeviceId, UserId};

const LIMITS: OutboxLimits = OutboxLimits { bytes: 1 << 20, frames: 100 };

fn message(seq: i64, size: usize) -> Held {
    let conversation = ConversationId::parse("g:team").unwrap();
    let mark = Arc::new(Mark { conversation, epoch: 7, seq, id: seq });
    let byte = u8::try_from(seq).unwrap();
    Held { frame: Frame::copy(vec![byte; size].into(), mark), except: None, mver: 0 }
}

fn run(seqs: std::ops::RangeInclusive<i64>, size: usize) -> Run {
    Run::new(seqs.map(|seq| message(seq, size)).collect())
}

fn outbox() -> Outbox {
    let outbox = Outbox::opening();
    outbox.open(Vec::new(), Start::default(), LIMITS);
    assert!(outbox.enter(&ConversationId::parse("g:team").unwrap(), 7, 0, 0));
    outbox
}

fn offer(outbox: &Outbox, run: &Run, limits: OutboxLimits) -> Fanned {
    let mut fanned = Fanned::default();
    outbox.offer_run(run, 0, |_| false, || limits, &mut fanned);
    fanned
}

async fn sockets() -> (Arc<TcpStream>, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    SockRef::from(&server).set_send_buffer_size(8 * 1024).unwrap();
    server.set_nonblocking(true).unwrap();
    let server = TcpStream::from_std(server).unwrap();
    server.writable().await.unwrap();
    (Arc::new(server), client)
}

#[tokio::test]
async fn what_nobody_waits_before_goes_straight_to_the_socket() {
    let (server, mut client) = sockets().await;
    let outbox = outbox();
    outbox.attach(server);
    let fanned = offer(&outbox, &run(1..=3, 100), LIMITS);
    assert_eq!((fanned.taken, fanned.written, fanned.queued), (3, 3, 0));
    let mut got = [0; 300];
    client.read_exact(&mut got).unwrap();
    assert_eq!((got[0], got[150], got[299]), (1, 2, 3));
    assert_eq!(outbox.backlog(), (0, 0));
    // A hole is none of the socket's.
    assert_eq!(offer(&outbox, &run(5..=6, 100), LIMITS).early, 0b11);
    assert_eq!(offer(&outbox, &run(3..=3, 100), LIMITS).taken, 0);
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_queued_in_order() {
    let (server, mut client) = sockets().await;
    let outbox = outbox();
    outbox.attach(Arc::clone(&server));
    let mut sent = 0;
    let mut seq = 1;
    while outbox.backlog().0 == 0 {
        sent += offer(&outbox, &run(seq..=seq + 3, 100_000), LIMITS).taken;
        seq += 4;
    }
    // Behind what is queued nothing is written.
    let later = offer(&outbox, &run(seq..=seq, 1), LIMITS);
    assert_eq!((later.taken, later.written), (1, 0));
    let left = outbox.take(Waker::noop());
    let rest: usize = left.queue.iter().map(|frame| frame.bytes.len()).sum();
    let total = usize::try_from(sent).unwrap() * 100_000 + 1;
    let in_kernel = total - (rest - usize::try_from(left.offset).unwrap());
    let mut got = vec![0; in_kernel];
    client.read_exact(&mut got).unwrap();
    let mut all = got;
    let mut skip = usize::try_from(left.offset).unwrap();
    for frame in &left.queue {
        all.extend_from_slice(&frame.bytes[std::mem::take(&mut skip)..]);
    }
    let whole: Vec<u8> = (1..seq).flat_map(|seq| vec![u8::try_from(seq).unwrap(); 100_000]).collect();
    assert!(all[..total - 1] == whole && all[total - 1] == u8::try_from(seq).unwrap());
}

#[test]
fn a_run_that_does_not_fit_is_one_hint() {
    let limits = OutboxLimits { bytes: 1_000, frames: 100 };
    let outbox = outbox();
    let fanned = offer(&outbox, &run(1..=8, 200), limits);
    assert_eq!((fanned.taken, fanned.written), (8, 0));
    let queue = outbox.take(Waker::noop()).queue;
    let kinds: Vec<_> = queue.iter().map(|frame| frame.class).collect();
    assert_eq!(kinds, [Class::Control], "{queue:?}");
    assert_eq!(offer(&outbox, &run(9..=9, 1), limits).taken, 0, "it is to pull");
}

#[test]
fn a_run_that_goes_on_behind_what_is_known_is_given_from_there() {
    let outbox = outbox();
    assert_eq!(offer(&outbox, &run(1..=3, 10), LIMITS).taken, 3);
    // Two of it are known, then all of it is new, and then it is not whose it is.
    assert_eq!(offer(&outbox, &run(2..=5, 10), LIMITS).taken, 2);
    let mut fanned = Fanned::default();
    outbox.offer_run(&run(6..=9, 10), 7, |_| false, || LIMITS, &mut fanned);
    assert_eq!((fanned.taken, fanned.early), (0, 0b1100), "what he does not see is a hole to him");
    assert_eq!(offer(&outbox, &run(6..=9, 10), LIMITS).taken, 4);
    let seqs: Vec<_> = outbox.take(Waker::noop()).queue.iter().map(|frame| frame.bytes[0]).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn the_senders_own_message_is_not_given_back() {
    let outbox = outbox();
    let ack = Frame::control(vec![9].into(), crate::telemetry::FrameKind::Other);
    outbox.acknowledge(ack, message(2, 1).frame.mark.as_ref().unwrap(), LIMITS);
    let mut fanned = Fanned::default();
    let own = |held: &Held| held.frame.mark.as_ref().is_some_and(|mark| mark.seq == 2);
    outbox.offer_run(&run(1..=3, 10), 0, own, || LIMITS, &mut fanned);
    let seqs: Vec<_> = outbox.take(Waker::noop()).queue.iter().map(|frame| frame.bytes[0]).collect();
    assert_eq!(seqs, [9, 1, 3]);
    assert_eq!(fanned.taken, 2);
}

#[test]
fn of_several_senders_each_lacks_what_he_sent() {
    let peer = |conn| {
        let (user, device) = (UserId::new(1).unwrap(), DeviceId::new("d").unwrap());
        let identity = PeerIdentity { conn: ConnId(conn), user, device, expires_at: PeerIdentity::NEVER };
        let peer = Arc::new(Peer::new(identity, 1, LIMITS));
        peer.outbox.open(Vec::new(), Start::default(), LIMITS);
        assert!(peer.outbox.enter(&ConversationId::parse("g:team").unwrap(), 7, 0, 0));
        peer
    };
    let peers: Vec<Arc<Peer>> = (0..5).map(peer).collect();
    let of = |sender: usize, seq| Held { except: peers.get(sender).cloned(), ..message(seq, 10) };
    let run = Run::new(vec![of(1, 1), of(3, 2), of(9, 3)]);
    for (sender, seq) in [(1, 1), (3, 2)] {
        let ack = Frame::control(vec![9].into(), crate::telemetry::FrameKind::Ack);
        peers[sender].outbox.acknowledge(ack, message(seq, 1).frame.mark.as_ref().unwrap(), LIMITS);
    }
    let given = |peer: &Arc<Peer>| {
        peer.offer_run(&run, 0, &mut Fanned::default());
        let queue = peer.outbox.take(Waker::noop()).queue;
        queue.iter().map(|frame| frame.bytes[0]).collect::<Vec<_>>()
    };
    let all: Vec<_> = peers.iter().map(given).collect();
    assert_eq!(all, [vec![1, 2, 3], vec![9, 2, 3], vec![1, 2, 3], vec![9, 1, 3], vec![1, 2, 3]]);
}
