//! Everybody who is moved: talkers in pairs, a group, heartbeats, messages
//! written by halves, and readers that do not read for a while.

mod judge;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::text;
use super::traveller::{Begun, Faults, Traveller};
use crate::frame;
use crate::latency::Latencies;
use crate::progress::Progress;
use crate::scan::Seen;
use crate::swarm::{Swarm, Told};

/// Receive buffer of a slow reader, bytes.
pub(super) const RECEIVE: usize = 4096;
/// Share of the connections that read nothing during a hot restart, and of
/// those that are in the middle of a message: one in so many.
const ONE_IN: u32 = 14;
/// Half a message is followed by the other half before a gateway takes it for
/// an attack.
const HALF: Duration = Duration::from_secs(4);
/// Slow readers that go on reading between two looks at the clock: phones do
/// not wait for each other, but all of these share a core.
const RETURNING: usize = 8;
/// Behind one that was put off.
const AGAIN: Duration = Duration::from_millis(200);

/// Who does what, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    connections: u32,
    pub(super) members: u32,
    /// From here on they do not read during a hot restart.
    pub(super) first_slow: u32,
    halves: usize,
    every_message: Duration,
    every_beat: Duration,
}

impl Shares {
    /// Of an even number of connections.
    pub(super) fn of(connections: u32, members: u32, rate: f64, beats: f64) -> Self {
        let first_slow = connections - connections.div_ceil(ONE_IN);
        Self {
            connections: connections - connections % 2,
            members: members.min(first_slow),
            first_slow,
            halves: usize::try_from(connections.div_ceil(ONE_IN)).unwrap_or_default(),
            every_message: Duration::from_secs_f64(1.0 / rate.max(0.1)),
            every_beat: Duration::from_secs_f64(1.0 / beats.max(0.1)),
        }
    }
}

/// See above.
pub(super) struct Crowd {
    shares: Shares,
    group: String,
    first_user: u64,
    all: Vec<Traveller>,
    /// Clients with half a message, the oldest first.
    halves: VecDeque<u32>,
    /// To be sent again, and when.
    again: VecDeque<(Instant, u32, Vec<u8>)>,
    /// When the next message and the next heartbeat are due, and whose.
    message: (Instant, u32),
    beat: (Instant, u32),
    /// Those that do not read now.
    deaf: Range<u32>,
    /// What those are sent.
    chunks: Vec<String>,
    faults: Faults,
    gone: Vec<String>,
    echo: Latencies,
    stored: Latencies,
}

impl Crowd {
    pub(super) fn new(shares: Shares, group: &str, first_user: u64) -> Self {
        let now = Instant::now();
        let mut all = Vec::new();
        all.resize_with(usize::try_from(shares.connections).unwrap_or_default(), Traveller::default);
        Self {
            shares,
            group: group.to_owned(),
            first_user,
            all,
            halves: VecDeque::new(),
            again: VecDeque::new(),
            message: (now, 0),
            beat: (now, 0),
            deaf: 0..0,
            chunks: Vec::new(),
            faults: Faults::default(),
            gone: Vec::new(),
            echo: Latencies::default(),
            stored: Latencies::default(),
        }
    }

    fn user(&self, index: u32) -> u64 {
        self.first_user + u64::from(index)
    }

    /// Those that do not read now and then.
    pub(super) fn slow_users(&self) -> Vec<u64> {
        (self.shares.first_slow..self.shares.connections).map(|index| self.user(index)).collect()
    }

    /// The slow ones stop reading; what they are sent is known.
    pub(super) fn close_ears(&mut self, swarm: &mut Swarm, round: u32) -> Result<()> {
        self.deaf = self.shares.first_slow..self.shares.connections;
        self.chunks = (0..text::CHUNKS).map(|number| text::chunk(round, number)).collect();
        for index in self.deaf.clone() {
            swarm.set_deaf(index, true)?;
            if let Some(traveller) = self.all.get_mut(usize::try_from(index)?) {
                traveller.chunk = Some(0);
            }
        }
        Ok(())
    }

    /// Some of them read again.
    pub(super) fn open_ears(&mut self, swarm: &mut Swarm) -> Result<()> {
        for index in self.deaf.by_ref().take(RETURNING) {
            swarm.set_deaf(index, false)?;
        }
        Ok(())
    }

    /// Nothing is overdue: time passed without talking.
    pub(super) fn resume(&mut self) {
        let now = Instant::now();
        (self.message.0, self.beat.0) = (self.message.0.max(now), self.beat.0.max(now));
    }

    /// Sends what is due; with `halves`, some are always in the middle of a
    /// message.
    pub(super) fn talk(&mut self, swarm: &mut Swarm, halves: bool) -> Result<()> {
        let now = Instant::now();
        while self.again.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, index, frame)) = self.again.pop_front() else { break };
            swarm.send(index, &frame)?;
        }
        while self.message.0 <= now {
            let (due, index) = self.message;
            self.say(swarm, index, due, false)?;
            self.message = (due + self.shares.every_message, (index + 1) % self.shares.connections);
        }
        while self.beat.0 <= now {
            let (due, index) = self.beat;
            if let Some(one) = self.all.get_mut(usize::try_from(index)?)
                && one.is_free()
                && !one.is_behind()
            {
                one.beats.push_back(due);
                swarm.send(index, &frame::HEARTBEAT)?;
            }
            self.beat = (due + self.shares.every_beat, (index + 1) % self.shares.connections);
        }
        let mut index = fastrand::u32(1..self.shares.first_slow);
        let mut tries = self.shares.first_slow;
        while halves && self.halves.len() < self.shares.halves && tries > 0 {
            self.say(swarm, index, now, true)?;
            index = index % (self.shares.first_slow - 1) + 1;
            tries -= 1;
        }
        let is_old = |one: &Traveller| {
            let since = one.begun.as_ref().and_then(|begun| begun.rest.as_ref()).map(|(_, since)| *since);
            since.is_none_or(|since| since.elapsed() >= HALF)
        };
        while let Some(index) = self.halves.front().copied()
            && self.all.get(usize::try_from(index)?).is_none_or(is_old)
        {
            self.halves.pop_front();
            self.finish_half(swarm, index)?;
        }
        Ok(())
    }

    /// Client `index` says something, unless an answer to the last is due: at
    /// once, in fragments around a ping, or only half of it.
    fn say(&mut self, swarm: &mut Swarm, index: u32, due: Instant, half: bool) -> Result<()> {
        let (user, other) = (self.user(index), self.user(index ^ 1));
        let conversation = match index {
            0 => self.group.clone(),
            _ => format!("p2p:{}:{}", user.min(other), user.max(other)),
        };
        let Some(one) = self.all.get_mut(usize::try_from(index)?).filter(|one| one.begun.is_none()) else {
            return Ok(());
        };
        let number = one.said;
        one.said += 1;
        let payload = frame::text(&conversation, &format!("t-{number}"), &text::message(user, number));
        let whole = frame::envelope(payload.clone());
        let (first, rest) = if half {
            let mut first = whole.clone();
            let rest = first.split_off(fastrand::usize(1..whole.len()));
            (first, Some((rest, Instant::now())))
        } else if number % 5 == 4 {
            one.pings += 1;
            (frame::in_fragments(payload), None)
        } else {
            (whole.clone(), None)
        };
        if rest.is_some() {
            self.halves.push_back(index);
        }
        one.begun = Some(Begun { number, frame: whole, rest, due, is_repeated: false });
        swarm.send(index, &first)
    }

    /// What was begun is ended.
    pub(super) fn finish_halves(&mut self, swarm: &mut Swarm) -> Result<()> {
        std::mem::take(&mut self.halves).into_iter().try_for_each(|index| self.finish_half(swarm, index))
    }

    fn finish_half(&mut self, swarm: &mut Swarm, index: u32) -> Result<()> {
        let begun = self.all.get_mut(usize::try_from(index)?).and_then(|one| one.begun.as_mut());
        let Some(begun) = begun else { return Ok(()) };
        let Some((rest, _)) = begun.rest.take() else { return Ok(()) };
        // The answer counts from when it could come.
        begun.due = Instant::now();
        swarm.send(index, &rest)
    }

    /// Waits until `until`, and takes what everybody is told.
    pub(super) fn listen(
        &mut self,
        progress: &mut Progress,
        swarm: &mut Swarm,
        until: Instant,
    ) -> Result<()> {
        swarm.turn(until, |index, at, told| {
            if let Some(latency) = self.told(index, at, &told) {
                progress.record(latency);
            }
        })?;
        progress.tick(Instant::now());
        Ok(())
    }

    fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) -> Option<Duration> {
        let (user, other) = (self.user(index), self.user(index ^ 1));
        let Self { all, faults, chunks, .. } = self;
        let one = all.get_mut(usize::try_from(index).ok()?)?;
        let seen = match told {
            Told::Said(seen) => seen,
            Told::Gone(why) => {
                self.gone.push(format!("{why:#}"));
                return None;
            }
        };
        match seen {
            Seen::Heartbeat => {
                // Of one that did not read it says when he did.
                let latency = one.echoed(at, faults).filter(|_| index < self.shares.first_slow)?;
                self.echo.record(latency);
                return Some(latency);
            }
            Seen::Ack(ack) if ack.client_msg_id.is_empty() => {}
            Seen::Ack(ack) => match one.answered(at, ack, faults)? {
                Ok(latency) => self.stored.record(latency),
                Err(frame) => self.again.push_back((at + AGAIN, index, frame)),
            },
            // In a repair, which may come before the answer.
            Seen::Push(push, _) if i64::try_from(user) == Ok(push.from) => {}
            Seen::Push(push, _) if push.conversation == self.group.as_bytes() => {
                one.pushed(push, self.first_user, true, faults);
            }
            Seen::Push(push, _) => one.pushed(push, other, false, faults),
            Seen::Custom { payload, .. } => one.chunk(payload, chunks, faults),
            Seen::Pong(payload) => one.ponged(payload, faults),
            Seen::Hint { .. } => faults.hinted += 1,
            Seen::Error { .. } => faults.strange += 1,
            Seen::GoAway => self.gone.push("asked to go away".to_owned()),
            Seen::Kick { reason } => self.gone.push(format!("kicked: reason {reason}")),
            _ => {}
        }
        None
    }
}
