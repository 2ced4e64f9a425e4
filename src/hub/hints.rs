//! Hints: what a client is told instead of being given copies.

use std::sync::Arc;

use super::Ending;
use super::outbox::{Class, Frame, OutboxLimits, State};
use crate::message::Mark;
use crate::telemetry::{FrameKind, HintCause, metrics};
use crate::types::{CloseReason, ConversationId};
use crate::wire::pb::ConversationHint;
use crate::wire::{Payload, encode, reply};

impl State {
    /// Makes hints of all queued copies and of this one.
    pub(super) fn degrade(&mut self, incoming: &Frame, limits: OutboxLimits) {
        let mut copies = self.take_copies();
        // The newest of each conversation comes last, and is what the hint says.
        copies.extend(incoming.mark.clone());
        if incoming.mark.is_some() {
            metrics().copies_replaced_by_hint.increment(1);
        } else {
            metrics().copies_dropped_slow.increment(1);
            self.ending = Some(Ending::of(CloseReason::SlowConsumer));
        }
        self.hint_instead(copies, limits);
    }

    /// Makes hints of all queued copies; returns whether there were any.
    pub(super) fn make_way(&mut self, limits: OutboxLimits) -> bool {
        let copies = self.take_copies();
        let any = !copies.is_empty();
        self.hint_instead(copies, limits);
        any
    }

    /// Takes all queued copies out.
    fn take_copies(&mut self) -> Vec<Arc<Mark>> {
        // What has left in part must leave whole.
        let kept = self.queue.front().filter(|_| self.offset > 0).cloned();
        let mut queue = std::mem::take(&mut self.queue);
        if kept.is_some() {
            queue.pop_front();
        }
        let mut copies = Vec::new();
        self.queue.extend(kept);
        for frame in queue {
            if frame.class == Class::Push && frame.mark.is_some() {
                self.bytes = self.bytes.saturating_sub(frame.size());
                self.frames = self.frames.saturating_sub(1);
                copies.extend(frame.mark);
            } else {
                self.queue.push_back(frame);
            }
        }
        let replaced = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        metrics().copies_queued.decrement(replaced);
        metrics().copies_replaced_by_hint.increment(u64::from(replaced));
        copies
    }

    fn hint_instead(&mut self, copies: Vec<Arc<Mark>>, limits: OutboxLimits) {
        let mut newest: Vec<Arc<Mark>> = Vec::new();
        for mark in copies.into_iter().rev() {
            if !newest.iter().any(|known| known.conversation == mark.conversation) {
                newest.push(mark);
            }
        }
        for mark in newest.iter().rev() {
            self.hint(&mark.conversation, mark.epoch, mark.seq, 0, HintCause::SlowReader, limits);
        }
    }

    pub(super) fn hint(
        &mut self,
        conversation: &ConversationId,
        epoch: u64,
        top_seq: i64,
        pull_delay_ms: u32,
        cause: HintCause,
        limits: OutboxLimits,
    ) {
        // While it opens it is only noted: `Ready` may tell as much.
        let handed = cause != HintCause::SlowReader;
        if self.is_over() || !self.places.pull(conversation, epoch, top_seq, handed) || self.opening {
            return;
        }
        metrics().count_hint(cause);
        let conversation_id = conversation.text();
        let hint = ConversationHint { conversation_id, top_seq, epoch, pull_delay_ms };
        self.push(Frame::control(encode(&reply("", Payload::Hint(hint))), FrameKind::Other), limits);
    }
}
