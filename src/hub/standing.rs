//! What the client of one connection is known to have of a conversation, and
//! its being told that this is not in the log.
//!
//! Acks and RESYNCs are queued under the lock that what they change is noted
//! under: what the client was told last is what is known here.

use super::outbox::{Frame, Outbox, OutboxLimits, wake};
use crate::message::{Mark, Place};
use crate::types::ConversationId;

impl Outbox {
    /// Queues the ack of a message that came over this connection. Returns
    /// whether it is to be held against the log at once: it is of an older
    /// history than what the client was given.
    pub(crate) fn acknowledge(&self, ack: Frame, mark: &Mark, limits: OutboxLimits) -> bool {
        let mut state = self.state.lock();
        state.push(ack, limits);
        let doubtful = !state.opening && state.places.acknowledge(mark);
        wake(state);
        doubtful
    }

    /// Where the connection is, and what else its client has; `None` = not
    /// known, or the client pulls.
    #[must_use]
    pub(crate) fn standing(&self, conversation: &ConversationId) -> Option<(Place, Vec<Place>)> {
        let state = self.state.lock();
        let judged = !state.opening && !state.is_over() && !state.places.is_pulling(conversation);
        let place = state.places.get(conversation).filter(|_| judged)?;
        Some((place, state.places.holdings(conversation).collect()))
    }

    /// What the client has beyond its place, or had before it began to pull.
    #[must_use]
    pub(crate) fn holdings(&self, conversation: &ConversationId) -> Vec<Place> {
        self.state.lock().places.holdings(conversation).collect()
    }

    /// Queues the answer to a pull that is not the end of the log, or nothing
    /// that is pushed goes on behind. `newest` = of its messages.
    pub(crate) fn give(
        &self,
        conversation: &ConversationId,
        newest: Option<Place>,
        answer: Frame,
        limits: OutboxLimits,
    ) {
        let mut state = self.state.lock();
        if let Some(newest) = newest {
            state.places.took(newest, conversation);
        }
        state.push(answer, limits);
        wake(state);
    }

    /// Queues the answer that there is no such conversation for the user, and
    /// forgets what its client has of it, as the client does; whether that was
    /// anything.
    pub(crate) fn disown(&self, conversation: &ConversationId, answer: Frame, limits: OutboxLimits) -> bool {
        let mut state = self.state.lock();
        let known = state.places.is_listed(conversation) || state.places.is_pulling(conversation);
        state.places.forget(conversation);
        state.push(answer, limits);
        wake(state);
        known
    }

    /// The client has this message already.
    pub(crate) fn took(&self, conversation: &ConversationId, message: Place) {
        self.state.lock().places.took(message, conversation);
    }

    /// One of the holdings is in the log of this epoch.
    pub(crate) fn proved(&self, held: &Place, epoch: u64) {
        self.state.lock().places.proved(held, epoch);
    }

    /// Tells the client to begin anew behind `to`, since `lost`, which it has,
    /// is not in the log. `false` = it has that no more: it was told, or has
    /// moved on.
    pub(crate) fn resync(
        &self,
        conversation: &ConversationId,
        lost: &Place,
        to: &Place,
        limits: OutboxLimits,
        error: impl FnOnce() -> Frame,
    ) -> bool {
        let mut state = self.state.lock();
        let told = !state.is_over() && state.places.give_up(conversation, lost, to);
        if told {
            state.push(error(), limits);
        }
        wake(state);
        told
    }

    /// Tells the client that the position it named is not in the log, which
    /// stands at `to`.
    pub(crate) fn refute(
        &self,
        conversation: &ConversationId,
        to: &Place,
        error: Frame,
        limits: OutboxLimits,
    ) {
        let mut state = self.state.lock();
        state.places.refute(conversation, to);
        state.push(error, limits);
        wake(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::super::Start;
    use super::super::copies::Offered;
    use super::*;
    use crate::telemetry::{FrameKind, HintCause};

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 1_000, frames: 8 };

    fn mark(epoch: u64, seq: i64) -> Mark {
        let conversation = ConversationId::parse("p2p:1:2").unwrap();
        Mark { conversation, epoch, seq, id: seq * 10 }
    }

    fn copy(epoch: u64, seq: i64) -> Frame {
        Frame::copy(vec![0].into(), Arc::new(mark(epoch, seq)))
    }

    fn word() -> Frame {
        Frame::control(vec![1].into(), FrameKind::Ack)
    }

    fn behind(epoch: u64, seq: i64) -> Outbox {
        let outbox = Outbox::opening();
        let places = vec![Place::behind(&mark(epoch, seq))];
        outbox.open(Vec::new(), Start { places, complete: true, pulling: Vec::new() }, LIMITS);
        outbox
    }

    fn queued(outbox: &Outbox) -> usize {
        outbox.take(Waker::noop()).queue.len()
    }

    fn holdings(outbox: &Outbox) -> Vec<(u64, i64)> {
        outbox.holdings(&mark(0, 0).conversation).iter().map(|held| (held.epoch, held.seq)).collect()
    }

    #[test]
    fn ones_own_message_needs_no_copy_but_counts() {
        let outbox = behind(7, 4);
        assert!(!outbox.acknowledge(word(), &mark(7, 5), LIMITS));
        assert_eq!(outbox.offer(&copy(7, 5), true, LIMITS), Offered::Stale);
        assert_eq!(outbox.offer(&copy(7, 6), false, LIMITS), Offered::Taken);
        assert_eq!((queued(&outbox), holdings(&outbox)), (2, vec![]), "the ack, and 6");
    }

    #[test]
    fn an_ack_outlives_the_copies_that_make_way_for_a_hint() {
        let outbox = behind(7, 4);
        outbox.acknowledge(word(), &mark(7, 6), LIMITS);
        for (seq, own) in [(5, false), (6, true), (7, false)] {
            outbox.offer(&copy(7, seq), own, LIMITS);
        }
        outbox.hint(&mark(0, 0).conversation, 7, 7, 0, HintCause::SlowReader, LIMITS);
        assert_eq!(holdings(&outbox), [(7, 6)]);
    }

    #[test]
    fn an_acked_message_needs_no_copy_unless_it_was_to_be_forgotten() {
        let outbox = behind(7, 4);
        assert!(!outbox.acknowledge(word(), &mark(7, 6), LIMITS));
        assert_eq!(outbox.offer(&copy(7, 6), true, LIMITS), Offered::Hole);
        assert_eq!(outbox.offer(&copy(7, 5), false, LIMITS), Offered::Taken);
        assert_eq!(outbox.offer(&copy(7, 6), true, LIMITS), Offered::Taken);
        assert_eq!((queued(&outbox), holdings(&outbox)), (2, vec![]), "the ack, and 5");

        assert!(!outbox.acknowledge(word(), &mark(9, 6), LIMITS));
        let (lost, to) = (Place::behind(&mark(7, 6)), Place::behind(&mark(9, 5)));
        assert!(outbox.resync(&mark(0, 0).conversation, &lost, &to, LIMITS, word));
        assert_eq!(outbox.offer(&copy(9, 6), true, LIMITS), Offered::Taken);
        assert_eq!(queued(&outbox), 3, "the ack, the word, and 6");
    }

    #[test]
    fn a_loss_is_told_once() {
        let outbox = behind(7, 4);
        let conversation = mark(0, 0).conversation;
        outbox.acknowledge(word(), &mark(7, 9), LIMITS);
        outbox.hint(&conversation, 7, 9, 0, HintCause::Gap, LIMITS);
        assert_eq!(holdings(&outbox), [(7, 9)], "what came before is proved with it");
        let (lost, to) = (Place::behind(&mark(7, 9)), Place::behind(&mark(8, 5)));
        assert!(outbox.resync(&conversation, &lost, &to, LIMITS, word));
        assert!(!outbox.resync(&conversation, &lost, &to, LIMITS, word));
        // What waited behind a hole is offered once more: that is no ack.
        outbox.offer(&copy(7, 9), true, LIMITS);
        assert_eq!(holdings(&outbox), []);
    }

    #[test]
    fn what_was_pulled_ahead_of_what_is_pushed_is_known() {
        let outbox = behind(7, 4);
        let conversation = mark(0, 0).conversation;
        outbox.give(&conversation, Some(Place::behind(&mark(7, 4))), word(), LIMITS);
        assert_eq!(holdings(&outbox), [], "it was given that before");
        outbox.pulled(6, &mark(7, 8), Some(Place::behind(&mark(7, 8))), (0, 0), LIMITS, |_| word());
        assert_eq!(holdings(&outbox), [(7, 8)]);
        (5..=8).for_each(|seq| assert_eq!(outbox.offer(&copy(7, seq), false, LIMITS), Offered::Taken));
        assert_eq!(holdings(&outbox), [], "it has come so far");
    }

    #[test]
    fn an_ack_of_an_older_history_is_doubted() {
        let outbox = behind(7, 4);
        assert!(outbox.acknowledge(word(), &mark(6, 5), LIMITS));
        assert_eq!(holdings(&outbox), [(6, 5)]);
        outbox.proved(&Place::behind(&mark(6, 5)), 7);
        assert_eq!(outbox.offer(&copy(7, 5), false, LIMITS), Offered::Taken);
        assert_eq!(holdings(&outbox), [], "it is proved");
    }
}
