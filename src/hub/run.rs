//! A run of messages of one conversation, on its way to one connection after
//! another.
//!
//! Where nothing is queued before it, a run is written straight to the socket,
//! in one call and under the outbox's lock: waking a task for it costs as much
//! again as the kernel takes. What the kernel does not take is queued, and the
//! task is woken for that. So all bytes are in the outbox or in the kernel
//! still, and in order.

use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::copies::Offered;
use super::gap::Held;
use super::outbox::{Frame, Outbox, OutboxLimits, State, wake};
use super::peer::Peer;
use crate::telemetry::{FrameKind, metrics};

/// Most messages of one run.
pub(crate) const MAX_RUN: usize = 32;

/// At most [`MAX_RUN`] messages of one conversation, in order.
#[derive(Debug)]
pub(crate) struct Run {
    messages: Vec<Held>,
    /// Of their conversation.
    key: u64,
    /// All of them, for the many who get all of them: one buffer costs the
    /// kernel half of what eight cost it.
    joined: Bytes,
}

impl Run {
    /// Of these.
    #[must_use]
    pub(crate) fn new(messages: Vec<Held>) -> Self {
        let joined = match messages.as_slice() {
            [one] => one.frame.bytes.clone(),
            many => many.iter().map(|held| held.frame.bytes.as_ref()).collect::<Vec<_>>().concat().into(),
        };
        let key = messages.first().and_then(|held| held.frame.mark.as_ref());
        let key = key.map_or(0, |mark| mark.conversation.key());
        Self { messages, key, joined }
    }

    /// Them.
    #[must_use]
    pub(crate) fn messages(&self) -> &[Held] {
        &self.messages
    }
}

/// What became of a run, at all the connections it was offered to.
#[derive(Debug, Default)]
pub(crate) struct Fanned {
    /// Copies on their way.
    pub taken: u64,
    /// Messages, a bit each, that came too early for somebody.
    early: u32,
    /// Of these, those that are of another history than somebody's.
    other_history: u32,
    gone: u64,
    queued: u32,
    written: u64,
    bytes: usize,
    batched: u64,
}

impl Fanned {
    fn note(&mut self, index: usize, offered: Offered) {
        match offered {
            Offered::Hole => self.early |= bit(index),
            Offered::OtherHistory => {
                self.early |= bit(index);
                self.other_history |= bit(index);
            }
            Offered::Taken | Offered::Gone | Offered::Stale | Offered::Pulling | Offered::Unlisted => {}
        }
    }

    /// Whether the message at `index` came too early for somebody.
    #[must_use]
    pub(crate) fn is_early(&self, index: usize) -> bool {
        self.early & bit(index) != 0
    }

    /// Whether it is of another history than somebody's.
    #[must_use]
    pub(crate) fn is_of_other_history(&self, index: usize) -> bool {
        self.other_history & bit(index) != 0
    }
}

fn bit(index: usize) -> u32 {
    1_u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0)
}

impl Drop for Fanned {
    /// Told once for all connections: a counter is shared by all threads.
    fn drop(&mut self) {
        let m = metrics();
        m.copies_enqueued.increment(self.taken + self.gone);
        if self.gone > 0 {
            m.copies_dropped_closed.increment(self.gone);
        }
        if self.queued > 0 {
            m.copies_queued.increment(self.queued);
        }
        if self.written > 0 {
            m.copies_written.increment(self.written);
            m.count_out(FrameKind::Push, self.written);
            m.bytes_out.increment(u64::try_from(self.bytes).unwrap_or(u64::MAX));
        }
        if self.batched > 0 {
            m.batched_frames.increment(self.batched);
        }
    }
}

impl Peer {
    /// Offers a run to a user who sees what has a larger seq than `since`.
    pub(crate) fn offer_run(&self, run: &Run, since: i64, fanned: &mut Fanned) {
        self.outbox.offer_run(run, since, |held| held.is_own(self), self.limits(), fanned);
    }
}

impl Outbox {
    fn offer_run(
        &self,
        run: &Run,
        since: i64,
        own: impl Fn(&Held) -> bool,
        limits: OutboxLimits,
        fanned: &mut Fanned,
    ) {
        let visible = |held: &Held| held.frame.mark.as_ref().is_some_and(|mark| mark.seq > since);
        let mut state = self.state.lock();
        if state.is_over() {
            let gone = run.messages.iter().filter(|held| visible(held)).count();
            fanned.gone += u64::try_from(gone).unwrap_or(u64::MAX);
            return;
        }
        let mut fresh = [None; MAX_RUN];
        let (mut count, mut asked) = (0, false);
        for (index, held) in run.messages.iter().enumerate().filter(|(_, held)| visible(held)) {
            match state.judge(&held.frame, run.key, own(held)) {
                Some(Offered::Unlisted) => {
                    state.ask_to_pull(&held.frame, limits);
                    asked = true;
                }
                Some(offered) => fanned.note(index, offered),
                None => {
                    if let Some(slot) = fresh.get_mut(count) {
                        *slot = Some(held);
                        count += 1;
                    }
                }
            }
        }
        if count == 0 {
            if asked {
                wake(state);
            }
            return;
        }
        let fresh = || fresh.iter().take(count).flatten();
        fanned.taken += u64::try_from(count).unwrap_or(u64::MAX);
        let mut left = if count == run.messages.len() {
            state.write(|socket| socket.try_write(&run.joined))
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_RUN];
            for (slice, held) in slices.iter_mut().zip(fresh()) {
                *slice = IoSlice::new(&held.frame.bytes);
            }
            state.write(|socket| socket.try_write_vectored(slices.get(..count).unwrap_or_default()))
        };
        fanned.bytes += left;
        let mut written = 0;
        for held in fresh() {
            let size = held.frame.bytes.len();
            if left >= size {
                left -= size;
                written += 1;
            } else if left > 0 {
                // What has left in part leaves whole.
                state.enqueue(held.frame.clone());
                state.offset = u32::try_from(std::mem::take(&mut left)).unwrap_or(u32::MAX);
                fanned.queued += 1;
            } else {
                state.queue_next(&held.frame, limits);
            }
        }
        fanned.written += written;
        fanned.batched += if written > 1 { written } else { 0 };
        if asked || written < u64::try_from(count).unwrap_or(u64::MAX) {
            wake(state);
        }
    }
}

impl State {
    /// Queues a copy that was judged before others of its run were queued: of
    /// one of them a hint may have been made, which then stands for it, too.
    fn queue_next(&mut self, frame: &Frame, limits: OutboxLimits) {
        let pulling = frame.mark.as_ref().filter(|mark| self.places.is_pulling(&mark.conversation));
        match pulling {
            Some(mark) => {
                self.places.offer(mark, false);
                metrics().copies_replaced_by_hint.increment(1);
            }
            None => self.queue_copy(frame, limits),
        }
    }

    /// Writes by itself, if nothing is queued; returns how many bytes left. An
    /// error is found by the connection's task.
    fn write(&self, write: impl FnOnce(&TcpStream) -> io::Result<usize>) -> usize {
        let socket = self.socket.as_ref().filter(|_| self.frames == 0 && !self.opening);
        socket.map_or(0, |socket| write(socket).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::sync::Arc;
    use std::task::Waker;

    use socket2::SockRef;

    use super::super::Start;
    use super::*;
    use crate::hub::{Class, Frame};
    use crate::message::Mark;
    use crate::types::ConversationId;

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
        outbox.offer_run(run, 0, |_| false, limits, &mut fanned);
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
}
