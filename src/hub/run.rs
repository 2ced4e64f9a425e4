//! A run of messages of one conversation, on its way to one connection after
//! another.
//!
//! Where nothing is queued before it, a run is written straight to the socket,
//! in one call and under the outbox's lock: waking a task for it costs as much
//! again as the kernel takes. What the kernel does not take is queued, and the
//! task is woken for that. So all bytes are in the outbox or in the kernel
//! still, and in order.

mod fanned;

use std::io::IoSlice;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::MutexGuard;

pub(crate) use self::fanned::Fanned;
use super::copies::Offered;
use super::direct::Direct;
use super::gap::Held;
use super::outbox::{Frame, Outbox, OutboxLimits, State, wake};
use super::peer::Peer;
use super::seat::Seat;
use crate::message::{Mark, Place, Stride};
use crate::telemetry::metrics;

/// Most messages of one run.
pub(crate) const MAX_RUN: usize = 32;

/// How many members before his turn the memory of one is asked for.
const AHEAD: usize = 2;

/// At most [`MAX_RUN`] messages of one conversation, in order. What is asked for
/// each connection lies here: the kernel uses the caches meanwhile.
#[derive(Debug)]
pub(crate) struct Run {
    messages: Vec<Held>,
    /// Of their conversation.
    key: u64,
    /// Where they follow one another.
    whole: Option<Whole>,
    /// The addresses of the connections that they came over are among these.
    senders: RangeInclusive<usize>,
    /// All of them, for the many who get all of them: one buffer costs the
    /// kernel half of what eight cost it.
    joined: Bytes,
}

/// A run as one step in its conversation.
#[derive(Debug)]
struct Whole {
    first: Arc<Mark>,
    /// Of that one.
    seq: i64,
    stride: Stride,
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
        let (whole, senders) = (Whole::of(&messages), senders(&messages));
        Self { messages, key, whole, senders, joined }
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

impl Whole {
    /// If they follow one another.
    fn of(messages: &[Held]) -> Option<Self> {
        let marks = || messages.iter().filter_map(|held| held.frame.mark.as_ref());
        let (first, last) = (marks().next()?, marks().next_back()?);
        let follow = marks()
            .zip(marks().skip(1))
            .all(|(one, next)| next.epoch == one.epoch && next.seq == one.seq + 1);
        let before = Place { seq: first.seq - 1, ..Place::behind(first) };
        let stride = Stride::new(&before, &Place::behind(last)).filter(|_| follow)?;
        Some(Self { first: Arc::clone(first), seq: first.seq, stride })
    }
}

/// From the least to the greatest address of a connection that one of these
/// came over.
fn senders(messages: &[Held]) -> RangeInclusive<usize> {
    let all = || messages.iter().filter_map(|held| held.except.as_ref()).map(|peer| Arc::as_ptr(peer).addr());
    all().min().unwrap_or(usize::MAX)..=all().max().unwrap_or(0)
}

impl Peer {
    /// Offers a run to a user who sees what has a larger seq than `since`. His
    /// limits are looked at where they are needed: of so many connections each
    /// look is a wait for memory.
    fn offer_run(&self, run: &Run, since: i64, fanned: &mut Fanned) {
        let is_sender = run.senders.contains(&std::ptr::from_ref(self).addr());
        self.outbox.offer_run(run, since, |held| is_sender && held.is_own(self), || self.limits(), fanned);
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
            return fanned.missed(gone);
        }
        if !run.messages.iter().any(&own) && state.stride(run, since) {
            let left = state.direct().map_or(0, |socket| socket.send(&run.joined));
            if left == run.joined.len() {
                return fanned.wrote(run.messages.len(), left);
            }
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
    left: usize,
    limits: impl Fn() -> OutboxLimits,
    fanned: &mut Fanned,
) {
    let (mut rest, mut written, mut queued, mut cut) = (left, 0, 0, false);
    for held in fresh {
        let size = held.frame.bytes.len();
        if rest >= size {
            rest -= size;
            written += 1;
            continue;
        }
        queued += 1;
        if rest > 0 {
            // What has left in part leaves whole.
            state.enqueue(held.frame.clone());
            state.offset = u32::try_from(std::mem::take(&mut rest)).unwrap_or(u32::MAX);
            cut = true;
        } else {
            state.queue_next(&held.frame, limits());
        }
    }
    fanned.wrote(written, left);
    if queued > 0 {
        fanned.left_over(queued, cut);
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

    /// Takes a run as a whole, if it is what comes next and all of it is seen
    /// by whoever sees what has a larger seq than `since`; returns whether.
    fn stride(&mut self, run: &Run, since: i64) -> bool {
        let whole = run.whole.as_ref().filter(|whole| since < whole.seq && !self.opening);
        whole.is_some_and(|whole| self.places.stride(&whole.first.conversation, &whole.stride))
    }

    /// Where to write by itself, if nothing is queued: tokio is not asked what it
    /// knows of the socket, which would be read for that alone.
    fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref().filter(|_| self.frames == 0 && !self.opening)
    }
}

#[cfg(test)]
mod tests;
