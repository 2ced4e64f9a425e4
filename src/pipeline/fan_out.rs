//! A run of messages to the members of one group here.

use std::ops::Range;
use std::sync::Arc;

use super::Ports;
use crate::hub::{Fanned, Held, MAX_RUN, Offered, Room, Run, Seat};
use crate::message::Place;
use crate::telemetry::HintCause;
use crate::types::monotonic_ms;

/// Bytes after which a run ends: what one connection may get at once.
const RUN_BYTES: usize = 256 * 1024;

/// Members between two looks whether somebody else wants the thread.
const STEP: usize = 512;
/// Members that are worth a worker of their own.
const SHARE: usize = 1_024;

impl Ports {
    /// Hands messages to the members of a group here, whole.
    pub(super) fn offer_to_room(&self, room: &Arc<Room>, messages: &[Held]) -> u64 {
        runs(messages)
            .map(|run| {
                let fan_out = FanOut::begin(self, room, run);
                let mut share = fan_out.share(0, 1);
                while share.step(usize::MAX) {}
                fan_out.end(&[share.fanned])
            })
            .sum()
    }

    /// The same, giving way to others in between; many members are shared out
    /// among the workers.
    pub(super) async fn offer_to_room_gently(&self, room: &Arc<Room>, messages: &[Held]) -> u64 {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let mut reached = 0;
        for run in runs(messages) {
            let fan_out = FanOut::begin(self, room, run);
            let shares = workers.min(fan_out.seats.len() / SHARE).max(1);
            let others: Vec<_> =
                (1..shares).map(|index| tokio::spawn(fan_out.share(index, shares).whole())).collect();
            let mut fanned = vec![fan_out.share(0, shares).whole().await];
            for other in others {
                // One that panicked has said so; its members pull.
                fanned.extend(other.await);
            }
            reached += fan_out.end(&fanned);
        }
        reached
    }
}

/// Cuts messages into runs.
fn runs(messages: &[Held]) -> impl Iterator<Item = &[Held]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |held: &&Held| {
            bytes += held.frame.bytes.len();
            bytes <= RUN_BYTES
        };
        let many = rest.iter().take(MAX_RUN).take_while(fits).count().max(1);
        let (run, behind) = rest.split_at_checked(many)?;
        rest = behind;
        Some(run)
    })
}

/// A fan-out: who gets what.
struct FanOut<'a> {
    ports: &'a Ports,
    room: &'a Arc<Room>,
    /// What is pushed.
    run: Arc<Run>,
    /// What the members are told of behind that, to come for it.
    busy: Vec<Held>,
    seats: Arc<[Seat]>,
}

impl<'a> FanOut<'a> {
    /// Begins with messages of one group, in order. If the room is older than
    /// one of them it is read again first, so that nobody gets what he may not
    /// see.
    fn begin(ports: &'a Ports, room: &'a Arc<Room>, messages: &[Held]) -> Self {
        let now_ms = monotonic_ms();
        // Before it is seen who is in: whoever comes later asks for them.
        messages.iter().filter_map(|held| held.frame.mark.as_ref()).for_each(|mark| room.hear(mark));
        let mver = messages.iter().map(|held| held.mver).max().unwrap_or(0);
        let (mut run, mut busy) = (Vec::with_capacity(messages.len()), Vec::new());
        let (known, seats) = match room.seats_at(mver, &ports.hub) {
            Some(seats) => (messages, seats),
            None => {
                for held in messages {
                    ports.hub.gaps.note(&room.conversation, now_ms, Some(held.clone()));
                }
                (Default::default(), Arc::default())
            }
        };
        for held in known {
            let Some(mark) = &held.frame.mark else { continue };
            let rate = room.count(now_ms);
            let hot = rate > ports.groups.push_rate || seats.len() > ports.groups.push_members;
            if hot || !busy.is_empty() {
                room.keep(mark, &held.frame.bytes, now_ms);
                busy.push(held.clone());
            } else {
                room.keep_on(mark, &held.frame.bytes, now_ms);
                run.push(held.clone());
            }
        }
        Self { ports, room, run: Arc::new(Run::new(run)), busy, seats }
    }

    /// One of `shares` of the members.
    fn share(&self, index: usize, shares: usize) -> Share {
        let many = if self.run.messages().is_empty() { 0 } else { self.seats.len() };
        let bound = |index: usize| many * index / shares.max(1);
        Share {
            run: Arc::clone(&self.run),
            seats: Arc::clone(&self.seats),
            left: bound(index)..bound(index + 1),
            fanned: Fanned::default(),
        }
    }

    /// What came too early waits; of a busy group the members are told to come.
    /// Returns how many copies are on their way.
    fn end(self, fanned: &[Fanned]) -> u64 {
        let conversation = &self.room.conversation;
        for (index, held) in self.run.messages().iter().enumerate() {
            if fanned.iter().any(|share| share.is_early(index)) {
                let other_history = fanned.iter().any(|share| share.is_of_other_history(index));
                self.ports.wait(conversation, held.clone(), other_history);
            }
        }
        if !self.run.messages().is_empty() {
            self.ports.go_on(conversation);
        }
        let told: u64 = self.busy.iter().map(|held| self.hint(held)).sum();
        told + fanned.iter().map(|fanned| fanned.taken).sum::<u64>()
    }

    /// Tells the members to come for a message that is kept for them, each after
    /// a delay of its own.
    fn hint(&self, held: &Held) -> u64 {
        let frame = &held.frame;
        let Some(mark) = &frame.mark else { return 0 };
        let spread = u32::try_from(self.ports.groups.pull_spread.as_millis()).unwrap_or(u32::MAX);
        let mut told = 0;
        // Who was quick has come for it already.
        let came = |place: Place| (place.epoch, place.seq) >= (mark.epoch, mark.seq);
        for seat in self.seats.iter().filter(|seat| seat.since < mark.seq) {
            for peer in seat.peers() {
                let has = |offered| matches!(offered, Offered::Taken | Offered::Stale);
                let known = peer.outbox.place(&mark.conversation).is_some_and(came);
                if known || held.is_own(peer) && has(peer.offer(frame, true)) {
                    continue;
                }
                let delay = if spread == 0 { 0 } else { fastrand::u32(0..spread) };
                peer.hint(&mark.conversation, mark.epoch, mark.seq, delay, HintCause::Hot);
                told += 1;
            }
        }
        told
    }
}

/// Some of the members of a fan-out, in steps: many members are many system
/// calls, and others want the thread, too.
struct Share {
    run: Arc<Run>,
    seats: Arc<[Seat]>,
    left: Range<usize>,
    fanned: Fanned,
}

impl Share {
    async fn whole(mut self) -> Fanned {
        while self.step(STEP) {
            tokio::task::yield_now().await;
        }
        self.fanned
    }

    /// Goes on with at most so many members; returns whether there are more.
    fn step(&mut self, most: usize) -> bool {
        let Self { run, seats, left, fanned } = self;
        let end = left.start.saturating_add(most).min(left.end);
        run.offer_to(seats.get(left.start..end).unwrap_or_default(), fanned);
        left.start = end;
        left.start < left.end
    }
}

#[cfg(test)]
mod tests;
