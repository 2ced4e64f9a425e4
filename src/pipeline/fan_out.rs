//! A run of messages to the members of one group here.

use std::sync::Arc;

use super::Ports;
use crate::hub::{Fanned, Held, MAX_RUN, Offered, Room};
use crate::message::Place;
use crate::telemetry::HintCause;
use crate::types::{UserId, monotonic_ms};

/// Bytes after which a run ends: what one connection may get at once.
const RUN_BYTES: usize = 256 * 1024;

/// A fan-out under way, in steps: many members are many system calls, and
/// others want the thread, too.
pub(crate) struct FanOut<'a> {
    ports: &'a Ports,
    room: &'a Room,
    /// What is pushed.
    run: Vec<Held>,
    /// What the members are told of behind that, to come for it.
    busy: Vec<Held>,
    members: Vec<(UserId, i64)>,
    next: usize,
    fanned: Fanned,
}

impl Ports {
    /// Hands messages to the members of a group here, whole.
    pub(super) fn offer_to_room(&self, room: &Room, messages: &[Held]) -> u64 {
        runs(messages)
            .map(|run| {
                let mut fan_out = FanOut::begin(self, room, run);
                while fan_out.step(usize::MAX) {}
                fan_out.end()
            })
            .sum()
    }

    /// The same, giving way to others in between.
    pub(super) async fn offer_to_room_gently(&self, room: &Room, messages: &[Held]) -> u64 {
        /// Members between two looks whether somebody else wants the thread.
        const STEP: usize = 256;
        let mut reached = 0;
        for run in runs(messages) {
            let mut fan_out = FanOut::begin(self, room, run);
            while fan_out.step(STEP) {
                tokio::task::yield_now().await;
            }
            reached += fan_out.end();
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

impl<'a> FanOut<'a> {
    /// Begins with messages of one group, in order. If the room is older than
    /// one of them it is read again first, so that nobody gets what he may not
    /// see.
    fn begin(ports: &'a Ports, room: &'a Room, messages: &[Held]) -> Self {
        let mut begun = Self {
            ports,
            room,
            run: Vec::with_capacity(messages.len()),
            busy: Vec::new(),
            members: Vec::new(),
            next: 0,
            fanned: Fanned::default(),
        };
        let now_ms = monotonic_ms();
        // Before it is seen who is in: whoever comes later asks for them.
        messages.iter().filter_map(|held| held.frame.mark.as_ref()).for_each(|mark| room.hear(mark));
        let mver = messages.iter().map(|held| held.mver).max().unwrap_or(0);
        let Some(members) = room.members_at(mver) else {
            for held in messages {
                ports.hub.gaps.note(&room.conversation, now_ms, Some(held.clone()));
            }
            return begun;
        };
        for held in messages {
            let Some(mark) = &held.frame.mark else { continue };
            let rate = room.count(now_ms);
            let hot = rate > ports.groups.push_rate || members.len() > ports.groups.push_members;
            if hot || !begun.busy.is_empty() {
                room.keep(mark, &held.frame.bytes, now_ms);
                begun.busy.push(held.clone());
            } else {
                room.keep_on(mark, &held.frame.bytes, now_ms);
                begun.run.push(held.clone());
            }
        }
        begun.members = members;
        begun
    }

    /// Goes on with at most so many members; returns whether there are more.
    fn step(&mut self, most: usize) -> bool {
        if self.run.is_empty() {
            return false;
        }
        let Self { ports, room, run, members, next, fanned, .. } = self;
        let rest = members.get(*next..).unwrap_or_default();
        for (user, since) in rest.iter().take(most) {
            match ports.hub.devices(*user) {
                Some(devices) => {
                    devices.as_slice().iter().for_each(|peer| peer.offer_run(run, *since, fanned));
                }
                // He left while he was taken in.
                None => room.leave_unless(*user, || ports.hub.has(*user)),
            }
        }
        *next += rest.len().min(most);
        *next < members.len()
    }

    /// What came too early waits; of a busy group the members are told to come.
    /// Returns how many copies are on their way.
    fn end(mut self) -> u64 {
        let bit = |index: usize| 1_u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
        let conversation = &self.room.conversation;
        for (index, held) in self.run.drain(..).enumerate() {
            if self.fanned.early & bit(index) != 0 {
                self.ports.wait(conversation, held, self.fanned.other_history & bit(index) != 0);
            }
        }
        self.ports.go_on(conversation);
        let told: u64 = self.busy.iter().map(|held| self.hint(held)).sum();
        told + self.fanned.taken
    }

    /// Tells the members to come for a message that is kept for them, each after
    /// a delay of its own.
    fn hint(&self, held: &Held) -> u64 {
        let Held { frame, except, .. } = held;
        let Some(mark) = &frame.mark else { return 0 };
        let spread = u32::try_from(self.ports.groups.pull_spread.as_millis()).unwrap_or(u32::MAX);
        let mut told = 0;
        // Who was quick has come for it already.
        let came = |place: Place| (place.epoch, place.seq) >= (mark.epoch, mark.seq);
        for (user, _) in self.members.iter().filter(|(_, since)| *since < mark.seq) {
            for peer in self.ports.hub.peers(*user) {
                let own = except.as_ref().is_some_and(|other| Arc::ptr_eq(other, &peer));
                let has = |offered| matches!(offered, Offered::Taken | Offered::Stale);
                let known = peer.outbox.place(&mark.conversation).is_some_and(came);
                if known || own && has(peer.offer(frame, true)) {
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
