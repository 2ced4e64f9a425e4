//! Copies of stored messages on their way into one outbox: each once, in
//! order, and for a reader that is too slow a hint in their place.
//!
//! The ladder of a slow reader: frames share writes; typing and the like is
//! dropped at half of the outbox; at three quarters the queued copies make
//! way for one hint per conversation; when even hints do not fit, or nothing
//! moves for a minute, the connection ends.

use std::sync::Arc;

use super::outbox::{Frame, Outbox, OutboxLimits, State, wake};
use crate::message::{Mark, Place, Pulling, Verdict};
use crate::telemetry::{HintCause, metrics};
use crate::types::ConversationId;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is on its way, or the client has it because it sent it.
    Taken,
    /// The connection is ending.
    Gone,
    /// It was handed over before.
    Stale,
    /// The client pulls this conversation.
    Pulling,
    /// The client was never told that its user is in this group: it is to ask.
    Unlisted,
    /// The messages before it come first.
    Hole,
    /// What the connection has is to be proved first.
    OtherHistory,
}

/// How far a new connection is in its conversations.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// In these, that far.
    pub places: Vec<Place>,
    /// There are no other conversations.
    pub complete: bool,
    /// These the client was told to pull: conversation, epoch, top.
    pub pulling: Vec<(ConversationId, u64, i64)>,
}

impl Outbox {
    /// Opens it: `front` goes first, and of the copies queued so far only what
    /// comes next behind the places stays. Returns those that came too early.
    pub(crate) fn open(&self, front: Vec<Frame>, start: Start, limits: OutboxLimits) -> Vec<Arc<Mark>> {
        let mut state = self.state.lock();
        state.opening = false;
        let noted = state.places.take_pulling();
        state.places.open(start.places, start.complete);
        for (conversation, epoch, top) in &start.pulling {
            // What `Ready` names is not what the client has.
            state.places.pull(conversation, *epoch, *top, false);
        }
        let queued = std::mem::take(&mut state.queue);
        (state.bytes, state.frames) = (0, 0);
        front.into_iter().for_each(|frame| state.enqueue(frame));
        for Pulling { conversation, epoch, top, .. } in noted {
            let place = state.places.get(&conversation);
            if place.is_none_or(|place| (place.epoch, place.seq) < (epoch, top)) {
                state.hint(&conversation, epoch, top, 0, HintCause::Gap, limits);
            }
        }
        let mut early = Vec::new();
        for frame in queued {
            let verdict = frame.mark.as_ref().map(|mark| state.places.offer(mark, false));
            match verdict {
                None | Some(Verdict::Next) => state.enqueue(frame),
                Some(Verdict::Unlisted) => {
                    metrics().copies_queued.decrement(1.0);
                    metrics().copies_replaced_by_hint.increment(1);
                    state.ask_to_pull(&frame, limits);
                }
                Some(verdict) => {
                    metrics().copies_queued.decrement(1.0);
                    metrics().copies_dropped_known.increment(1);
                    if matches!(verdict, Verdict::Hole | Verdict::OtherHistory) {
                        early.extend(frame.mark);
                    }
                }
            }
        }
        early
    }

    /// Offers a copy; `own` = the client sent it itself over this connection,
    /// and needs no copy unless it was told to forget what it had.
    pub(crate) fn offer(&self, frame: &Frame, own: bool, limits: OutboxLimits) -> Offered {
        let key = frame.mark.as_ref().map_or(0, |mark| mark.conversation.key());
        let mut state = self.state.lock();
        if state.is_over() {
            drop(state);
            metrics().copies_enqueued.increment(1);
            metrics().copies_dropped_closed.increment(1);
            return Offered::Gone;
        }
        match state.judge(frame, key, own) {
            Some(Offered::Unlisted) => {
                state.ask_to_pull(frame, limits);
                wake(state);
                Offered::Unlisted
            }
            Some(offered) => offered,
            None => {
                metrics().copies_enqueued.increment(1);
                state.queue_copy(frame, limits);
                wake(state);
                Offered::Taken
            }
        }
    }

    /// Tells the client to pull a conversation, unless it was told.
    pub(crate) fn hint(
        &self,
        conversation: &ConversationId,
        epoch: u64,
        top: i64,
        delay_ms: u32,
        cause: HintCause,
        limits: OutboxLimits,
    ) {
        let mut state = self.state.lock();
        state.hint(conversation, epoch, top, delay_ms, cause, limits);
        wake(state);
    }

    /// Queues the answer to a pull from `from` that reached `mark`, the end of
    /// the log; `known` is [`Self::known_top`] from before it was read.
    /// `newest` = of its messages; `answer` is told whether there is more by now.
    pub(crate) fn pulled(
        &self,
        from: i64,
        mark: &Mark,
        newest: Option<Place>,
        known: (u64, i64),
        limits: OutboxLimits,
        answer: impl FnOnce(bool) -> Frame,
    ) {
        let mut state = self.state.lock();
        if let Some(newest) = newest {
            state.places.took(newest, &mark.conversation);
        }
        // Encoded under the lock, so that no copy slips in before it.
        let more = !state.places.pulled(from, mark, known);
        state.push(answer(more), limits);
        wake(state);
    }

    /// The newest message known of in a conversation to be pulled, epoch and
    /// seq, or 0.
    #[must_use]
    pub(crate) fn known_top(&self, conversation: &ConversationId) -> (u64, i64) {
        self.state.lock().places.known_top(conversation)
    }

    /// Conversations to be pulled that have grown since the client was told.
    #[must_use]
    pub(crate) fn news(&self) -> Vec<Pulling> {
        self.state.lock().places.news()
    }

    /// How far it is; `None` = not known, or the client pulls.
    #[must_use]
    pub(crate) fn place(&self, conversation: &ConversationId) -> Option<Place> {
        let state = self.state.lock();
        let judged = !state.opening && !state.is_over() && !state.places.is_pulling(conversation);
        state.places.get(conversation).filter(|_| judged)
    }

    /// Moves to another place, if it is still at `from`.
    pub(crate) fn move_place(&self, conversation: &ConversationId, from: &Place, to: &Place) -> bool {
        let mut state = self.state.lock();
        let there = state.places.get(conversation) == Some(*from);
        if there {
            state.places.move_on(conversation, from, to);
        }
        there
    }

    /// Begins a conversation that the user has joined; `false` = it is known
    /// already, or the connection is not open yet.
    pub(crate) fn enter(&self, conversation: &ConversationId, epoch: u64, seq: i64, id: i64) -> bool {
        let mut state = self.state.lock();
        let new = !state.opening && !state.places.is_listed(conversation);
        if new {
            state.places.set(&Place::new(conversation, epoch, seq, id));
        }
        new
    }

    /// Nothing more comes of a conversation, for now: how far the client is
    /// stays known.
    pub(crate) fn suspend(&self, conversation: &ConversationId) {
        self.state.lock().places.stop_pulling(conversation);
    }

    /// Forgets a conversation that the user is no longer in.
    pub(crate) fn leave(&self, conversation: &ConversationId) {
        self.state.lock().places.forget(conversation);
    }

    /// The keys of the conversations it has a place in.
    #[must_use]
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.state.lock().places.keys().collect()
    }
}

impl State {
    /// Whether a copy is to be written; if so it counts as handed over
    /// (`None`). Otherwise, what becomes of it. `key` is that of its conversation.
    pub(super) fn judge(&mut self, frame: &Frame, key: u64, own: bool) -> Option<Offered> {
        let own = own && frame.mark.as_ref().is_some_and(|mark| self.places.has_ack(mark));
        if let Some(mark) = frame.mark.as_ref().filter(|_| !self.opening) {
            match self.places.offer_by(key, mark, own) {
                Verdict::Next => {}
                Verdict::Stale => return Some(Offered::Stale),
                Verdict::Pulling => return Some(Offered::Pulling),
                Verdict::Unlisted => return Some(Offered::Unlisted),
                Verdict::Hole => return Some(Offered::Hole),
                Verdict::OtherHistory => return Some(Offered::OtherHistory),
            }
        }
        own.then_some(Offered::Taken)
    }

    /// A list that does not name a group was read when the user was not in it
    /// yet, or no more.
    pub(super) fn ask_to_pull(&mut self, frame: &Frame, limits: OutboxLimits) {
        if let Some(mark) = &frame.mark {
            self.hint(&mark.conversation, mark.epoch, mark.seq, 0, HintCause::Gap, limits);
        }
    }

    /// Queues a copy, or, where there is no room, hints in its and the others'
    /// place.
    pub(super) fn queue_copy(&mut self, frame: &Frame, limits: OutboxLimits) {
        let too_many = self.frames >= limits.frames;
        let too_much = self.bytes.saturating_add(frame.size()) > limits.bytes / 4 * 3;
        if (too_many || too_much) && self.frames > 0 {
            self.degrade(frame, limits);
        } else {
            metrics().copies_queued.increment(1.0);
            self.enqueue(frame.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::outbox::Class;
    use super::*;
    use crate::telemetry::FrameKind;
    use crate::types::CloseReason;

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 1_000, frames: 8 };

    fn copy(peer: i64, seq: i64, size: usize) -> Frame {
        let conversation = ConversationId::parse(&format!("p2p:1:{peer}")).unwrap();
        Frame::copy(vec![0; size].into(), Arc::new(Mark { conversation, epoch: 7, seq, id: seq }))
    }

    fn outbox() -> Outbox {
        let outbox = Outbox::opening();
        outbox.open(Vec::new(), Start { complete: true, ..Start::default() }, LIMITS);
        outbox
    }

    fn kinds(outbox: &Outbox) -> Vec<(Class, Option<i64>)> {
        let queue = outbox.take(Waker::noop()).queue;
        let kinds = queue.iter().map(|f| (f.class, f.mark.as_ref().map(|m| m.seq))).collect();
        outbox.restore(queue, 0, 0, 0);
        kinds
    }

    fn of_a_group(seq: i64) -> Frame {
        let conversation = ConversationId::parse("g:a").unwrap();
        Frame::copy(vec![0].into(), Arc::new(Mark { conversation, epoch: 7, seq, id: seq }))
    }

    #[test]
    fn of_a_group_that_was_not_listed_the_client_asks() {
        let opening = Outbox::opening();
        assert_eq!(opening.offer(&of_a_group(2), false, LIMITS), Offered::Taken, "it may be listed yet");
        opening.open(Vec::new(), Start { complete: true, ..Start::default() }, LIMITS);
        assert_eq!(kinds(&opening), [(Class::Control, None)], "a hint");
        let outbox = outbox();
        assert_eq!(outbox.offer(&of_a_group(2), false, LIMITS), Offered::Unlisted);
        assert_eq!(outbox.offer(&of_a_group(3), false, LIMITS), Offered::Pulling);
        assert_eq!(kinds(&outbox), [(Class::Control, None)], "a hint");
    }

    #[test]
    fn what_the_client_is_told_does_not_exist_is_not_known_here_either() {
        let outbox = outbox();
        let group = of_a_group(2).mark.unwrap().conversation.clone();
        assert!(outbox.enter(&group, 7, 1, 1));
        assert_eq!(outbox.offer(&of_a_group(2), false, LIMITS), Offered::Taken);
        let answer = || Frame::control(vec![1].into(), FrameKind::Other);
        assert!(outbox.disown(&group, answer(), LIMITS));
        assert!(!outbox.disown(&group, answer(), LIMITS));
        assert!(outbox.enter(&group, 9, 0, 0), "told anew, should there be one again");
    }

    #[test]
    fn a_full_outbox_turns_copies_into_one_hint_per_conversation() {
        let outbox = outbox();
        for seq in 1..=3 {
            assert_eq!(outbox.offer(&copy(2, seq, 200), false, LIMITS), Offered::Taken);
        }
        assert_eq!(outbox.offer(&copy(3, 1, 200), false, LIMITS), Offered::Taken);
        assert_eq!(kinds(&outbox), [(Class::Control, None), (Class::Control, None)]);
        assert_eq!(outbox.offer(&copy(2, 4, 1), false, LIMITS), Offered::Pulling);
        assert_eq!(outbox.offer(&copy(4, 1, 1), false, LIMITS), Offered::Taken, "others go on");
        let mark = copy(2, 4, 1).mark.unwrap();
        outbox.pulled(1, &mark, None, (0, 0), LIMITS, |more| {
            assert!(!more);
            Frame::control(vec![1].into(), FrameKind::Other)
        });
        assert_eq!(outbox.offer(&copy(2, 5, 1), false, LIMITS), Offered::Taken);
        assert_eq!(outbox.take(Waker::noop()).ending, None);
    }

    #[test]
    fn a_copy_that_has_left_in_part_stays() {
        let outbox = outbox();
        for seq in 1..=3 {
            outbox.offer(&copy(2, seq, 200), false, LIMITS);
        }
        let queue = outbox.take(Waker::noop()).queue;
        outbox.restore(queue, 0, 0, 1);
        outbox.offer(&copy(2, 4, 200), false, LIMITS);
        assert_eq!(kinds(&outbox), [(Class::Push, Some(1)), (Class::Control, None)]);
    }

    #[test]
    fn hints_that_do_not_fit_end_it() {
        let outbox = outbox();
        for peer in 2..200 {
            outbox.offer(&copy(peer, 1, 700), false, LIMITS);
        }
        assert_eq!(outbox.take(Waker::noop()).ending.map(|e| e.reason), Some(CloseReason::SlowConsumer));
    }

    #[test]
    fn what_came_before_ready_is_judged_by_it() {
        let outbox = Outbox::opening();
        for (peer, seq) in [(2, 4), (2, 5), (3, 9), (4, 1)] {
            assert_eq!(outbox.offer(&copy(peer, seq, 1), false, LIMITS), Offered::Taken);
        }
        let conversation = |peer| copy(peer, 0, 0).mark.unwrap().conversation.clone();
        let places = vec![Place::new(&conversation(2), 7, 4, 4), Place::new(&conversation(3), 7, 7, 7)];
        let ready = Frame::control(vec![9].into(), FrameKind::Other);
        let start = Start { places, complete: true, pulling: Vec::new() };
        let early = outbox.open(vec![ready], start, LIMITS);
        assert_eq!(early.iter().map(|m| m.seq).collect::<Vec<_>>(), [9]);
        let queued = [(Class::Control, None), (Class::Push, Some(5)), (Class::Push, Some(1))];
        assert_eq!(kinds(&outbox), queued);
    }

    #[test]
    fn a_hint_that_came_before_ready_is_told_unless_ready_says_as_much() {
        let outbox = Outbox::opening();
        let mark = |peer, seq| copy(peer, seq, 0).mark.unwrap();
        for (peer, seq) in [(2, 5), (3, 5)] {
            outbox.hint(&mark(peer, seq).conversation, 7, seq, 0, HintCause::Hot, LIMITS);
        }
        let places = [(2, 5), (3, 4)].map(|(peer, seq)| Place::new(&mark(peer, seq).conversation, 7, seq, 0));
        let ready = Frame::control(vec![9].into(), FrameKind::Other);
        let start = Start { places: places.into(), complete: true, pulling: Vec::new() };
        assert!(outbox.open(vec![ready], start, LIMITS).is_empty());
        assert_eq!(kinds(&outbox), [(Class::Control, None), (Class::Control, None)]);
        assert_eq!(outbox.offer(&copy(2, 6, 1), false, LIMITS), Offered::Taken);
        assert_eq!(outbox.offer(&copy(3, 6, 1), false, LIMITS), Offered::Pulling);
    }

    #[test]
    fn copies_make_way_for_an_answer() {
        let outbox = outbox();
        for seq in 1..=3 {
            outbox.offer(&copy(2, seq, 200), false, LIMITS);
        }
        let answer = || Frame::control(vec![0; 500].into(), FrameKind::Other);
        assert!(outbox.push(answer(), LIMITS));
        assert_eq!(kinds(&outbox), [(Class::Control, None), (Class::Control, None)]);
        assert!(!outbox.push(answer(), LIMITS), "nothing is left to make way");
    }
}
