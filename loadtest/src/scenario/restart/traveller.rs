//! One client on its way from process to process: what it has said, what it
//! has heard, and what was wrong with that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::text;
use crate::scan::{Ack, Push};

/// A message that was begun and not answered.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its number.
    pub(super) number: u32,
    /// All of it, to be sent again where that is asked for.
    pub(super) frame: Vec<u8>,
    /// What is not sent yet, and since when.
    pub(super) rest: Option<(Vec<u8>, Instant)>,
    pub(super) due: Instant,
    pub(super) is_repeated: bool,
}

/// What was wrong, counted over all clients.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Bytes that are not those that were sent.
    pub(super) torn: u64,
    pub(super) doubled: u64,
    /// Something before it never came.
    pub(super) lost: u64,
    /// Answers to nothing that was asked.
    pub(super) strange: u64,
    /// Sends that were refused for good, or put off.
    pub(super) refused: u64,
    pub(super) put_off: u64,
    /// Told to pull.
    pub(super) hinted: u64,
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Traveller {
    /// Messages begun.
    pub(super) said: u32,
    pub(super) begun: Option<Begun>,
    /// Messages of the other one heard, and the seq of the last.
    pub(super) heard: (u32, i64),
    /// The same of the group.
    pub(super) group: (u32, i64),
    /// When each heartbeat that is not echoed yet was due.
    pub(super) beats: VecDeque<Instant>,
    /// Pings that are not answered yet.
    pub(super) pings: u32,
    /// The next of the chunks, where some are still to come.
    pub(super) chunk: Option<usize>,
}

impl Traveller {
    /// Whether nothing is under way to it or from it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.begun.is_none() && self.beats.is_empty() && self.pings == 0 && self.chunk.is_none()
    }

    /// Whether there is something left to read from when it did not.
    pub(super) const fn is_behind(&self) -> bool {
        self.chunk.is_some()
    }

    /// Whether something else can be sent now.
    pub(super) fn is_free(&self) -> bool {
        self.begun.as_ref().is_none_or(|begun| begun.rest.is_none())
    }

    /// The answer to its message; how long it took, or what is to be sent
    /// again.
    pub(super) fn answered(
        &mut self,
        at: Instant,
        ack: &Ack<'_>,
        faults: &mut Faults,
    ) -> Option<Result<Duration, Vec<u8>>> {
        let number = number_of(ack.client_msg_id);
        let Some(begun) = self.begun.as_mut().filter(|begun| Some(begun.number) == number) else {
            faults.strange += 1;
            return None;
        };
        if ack.status == Ack::STORED {
            faults.doubled += u64::from(ack.duplicate && !begun.is_repeated);
            let took = at.saturating_duration_since(begun.due);
            self.begun = None;
            return Some(Ok(took));
        }
        if Ack::PUT_OFF.contains(&ack.error) {
            faults.put_off += 1;
            begun.is_repeated = true;
            return Some(Err(begun.frame.clone()));
        }
        faults.refused += 1;
        self.begun = None;
        None
    }

    /// A message of `from`, who says one after the other.
    pub(super) fn pushed(&mut self, push: &Push<'_>, from: u64, is_group: bool, faults: &mut Faults) {
        let place = if is_group { &mut self.group } else { &mut self.heard };
        let Some(number) = number_of(push.client_msg_id) else {
            faults.strange += 1;
            return;
        };
        if number < place.0 || push.seq <= place.1 {
            faults.doubled += 1;
            return;
        }
        faults.lost += u64::from(number - place.0);
        *place = (number + 1, push.seq);
        let is_whole =
            i64::try_from(from) == Ok(push.from) && push.text == text::message(from, number).as_bytes();
        faults.torn += u64::from(!is_whole);
    }

    /// One of the `chunks` that were sent while it did not read.
    pub(super) fn chunk(&mut self, payload: &[u8], chunks: &[String], faults: &mut Faults) {
        let Some(number) = self.chunk else {
            faults.doubled += 1;
            return;
        };
        faults.torn += u64::from(chunks.get(number).is_none_or(|chunk| payload != chunk.as_bytes()));
        self.chunk = Some(number + 1).filter(|next| *next < chunks.len());
    }

    /// The echo of a heartbeat; how long it took.
    pub(super) fn echoed(&mut self, at: Instant, faults: &mut Faults) -> Option<Duration> {
        let due = self.beats.pop_front();
        faults.doubled += u64::from(due.is_none());
        due.map(|due| at.saturating_duration_since(due))
    }

    /// The answer to a ping.
    pub(super) fn ponged(&mut self, payload: &[u8], faults: &mut Faults) {
        faults.torn += u64::from(payload != crate::frame::PING);
        faults.doubled += u64::from(self.pings == 0);
        self.pings = self.pings.saturating_sub(1);
    }
}

/// `t-<number>`.
fn number_of(id: &[u8]) -> Option<u32> {
    std::str::from_utf8(id).ok()?.strip_prefix("t-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str, id: &'static str, seq: i64) -> (String, &'static str, i64) {
        (text.to_owned(), id, seq)
    }

    #[test]
    fn what_is_lost_doubled_or_torn_is_counted() {
        let (mut traveller, mut faults) = (Traveller::default(), Faults::default());
        let said = |n| text::message(7, n);
        let all = [
            push(&said(0), "t-0", 1),
            push(&said(0), "t-0", 1),
            push(&said(2), "t-2", 3),
            push(&said(2), "t-3", 4),
        ];
        for (text, id, seq) in &all {
            let push = Push {
                client_msg_id: id.as_bytes(),
                text: text.as_bytes(),
                seq: *seq,
                from: 7,
                ..Push::default()
            };
            traveller.pushed(&push, 7, false, &mut faults);
        }
        assert_eq!((faults.doubled, faults.lost, faults.torn), (1, 1, 1));
    }

    #[test]
    fn an_echo_too_many_is_a_double() {
        let (mut traveller, mut faults) = (Traveller::default(), Faults::default());
        traveller.beats.push_back(Instant::now());
        assert!(traveller.echoed(Instant::now(), &mut faults).is_some());
        assert!(traveller.echoed(Instant::now(), &mut faults).is_none());
        assert_eq!(faults.doubled, 1);
    }
}
