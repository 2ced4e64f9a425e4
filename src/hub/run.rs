//! A run of messages of one conversation, on its way to one connection after
//! another.
//!
//! Where nothing is queued before it, a run is written straight to the socket,
//! in one call and under the outbox's lock: waking a task for it costs as much
//! again as the kernel takes. What the kernel does not take is queued, and the
//! task is woken for that. So all bytes are in the outbox or in the kernel
//! still, and in order.

use std::io::IoSlice;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::copies::Offered;
use super::direct::Direct;
use super::gap::Held;
use super::outbox::{Frame, Outbox, OutboxLimits, State, wake};
use super::peer::Peer;
use super::seat::Seat;
use crate::message::{Place, Stride};
use crate::telemetry::{FrameKind, metrics};
use crate::types::ConversationId;

/// Most messages of one run.
pub(crate) const MAX_RUN: usize = 32;

/// How many members before his turn the memory of one is asked for.
const AHEAD: usize = 2;

/// At most [`MAX_RUN`] messages of one conversation, in order.
#[derive(Debug)]
pub(crate) struct Run {
    messages: Vec<Held>,
    /// Of their conversation.
    key: u64,
    /// Where they follow one another.
    stride: Option<Stride>,
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
        let stride = stride(&messages);
        Self { messages, key, stride, joined }
    }

    /// All of them as one step in their conversation, for whoever sees what
    /// has a larger seq than `since`.
    fn stride(&self, since: i64) -> Option<(&ConversationId, &Stride)> {
        let first = self.messages.first()?.frame.mark.as_ref().filter(|mark| mark.seq > since)?;
        Some((&first.conversation, self.stride.as_ref()?))
    }

    /// Offers it to the connections of these members.
    pub(crate) fn offer_to(&self, seats: &[Seat], fanned: &mut Fanned) {
        let coming = seats.iter().skip(AHEAD).map(Seat::peers).chain(std::iter::repeat(&[][..]));
        for (seat, coming) in seats.iter().zip(coming) {
            coming.iter().for_each(|peer| peer.outbox.approach());
            seat.peers().iter().for_each(|peer| peer.offer_run(self, seat.since, fanned));
        }
    }

    /// Them.
    #[must_use]
    pub(crate) fn messages(&self) -> &[Held] {
        &self.messages
    }
}

/// All of them as one step, if they follow one another.
fn stride(messages: &[Held]) -> Option<Stride> {
    let marks = || messages.iter().filter_map(|held| held.frame.mark.as_ref());
    let (first, last) = (marks().next()?, marks().next_back()?);
    let follow =
        marks().zip(marks().skip(1)).all(|(one, next)| next.epoch == one.epoch && next.seq == one.seq + 1);
    let before = Place { seq: first.seq - 1, ..Place::behind(first) };
    Stride::new(&before, &Place::behind(last)).filter(|_| follow)
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
    /// Offers a run to a user who sees what has a larger seq than `since`. His
    /// limits are looked at where they are needed: of so many connections each
    /// look is a wait for memory.
    fn offer_run(&self, run: &Run, since: i64, fanned: &mut Fanned) {
        self.outbox.offer_run(run, since, |held| held.is_own(self), || self.limits(), fanned);
    }
}

impl Outbox {
    fn offer_run(
        &self,
        run: &Run,
        since: i64,
        own: impl Fn(&Held) -> bool,
        limits: impl Fn() -> OutboxLimits,
        fanned: &mut Fanned,
    ) {
        let visible = |held: &Held| held.frame.mark.as_ref().is_some_and(|mark| mark.seq > since);
        let mut state = self.state.lock();
        if state.is_over() {
            let gone = run.messages.iter().filter(|held| visible(held)).count();
            fanned.gone += u64::try_from(gone).unwrap_or(u64::MAX);
            return;
        }
        if !run.messages.iter().any(&own) && state.stride(run, since) {
            let left = state.direct().map_or(0, |socket| socket.send(&run.joined));
            return hand_over(state, run.messages.iter(), left, limits, fanned);
        }
        let mut fresh = [None; MAX_RUN];
        let (mut count, mut asked) = (0, false);
        for (index, held) in run.messages.iter().enumerate().filter(|(_, held)| visible(held)) {
            match state.judge(&held.frame, run.key, own(held)) {
                Some(Offered::Unlisted) => {
                    state.ask_to_pull(&held.frame, limits());
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
        let fresh = fresh.iter().take(count).flatten().copied();
        let mut slices = [IoSlice::new(&[]); MAX_RUN];
        for (slice, held) in slices.iter_mut().zip(fresh.clone()) {
            *slice = IoSlice::new(&held.frame.bytes);
        }
        let slices = slices.get(..count).unwrap_or_default();
        let left = state.direct().map_or(0, |socket| socket.send_all(slices));
        hand_over(state, fresh, left, limits, fanned);
    }
}

/// Queues what is left of these after as many bytes have left, and wakes the
/// connection for it.
fn hand_over<'a>(
    mut state: MutexGuard<'_, State>,
    fresh: impl Iterator<Item = &'a Held>,
    mut left: usize,
    limits: impl Fn() -> OutboxLimits,
    fanned: &mut Fanned,
) {
    fanned.bytes += left;
    let (mut count, mut written) = (0, 0);
    for held in fresh {
        count += 1;
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
            state.queue_next(&held.frame, limits());
        }
    }
    fanned.taken += count;
    fanned.written += written;
    fanned.batched += if written > 1 { written } else { 0 };
    if written < count {
        wake(state);
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

    /// Takes a run as a whole, if it is what comes next; returns whether.
    fn stride(&mut self, run: &Run, since: i64) -> bool {
        let stride = run.stride(since).filter(|_| !self.opening);
        stride.is_some_and(|(conversation, stride)| self.places.stride(conversation, stride))
    }

    /// Where to write by itself, if nothing is queued: tokio is not asked what it
    /// knows of the socket, which would be read for that alone.
    fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref().filter(|_| self.frames == 0 && !self.opening)
    }
}

#[cfg(test)]
mod tests;
