//! Holes that connections here have seen, and the messages that wait behind
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Frame, Peer};
use crate::telemetry::metrics;
use crate::types::ConversationId;

/// How long a message waits for the ones before it.
pub(crate) const PATIENCE_MS: u64 = 50;
/// Most messages held of one conversation: the log has them all.
const MAX_HELD: usize = 256;
/// Most bytes held of one conversation.
const MAX_HELD_BYTES: usize = 1 << 20;

/// A message that came too early.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// The copy.
    pub frame: Frame,
    /// The connection it was sent over.
    pub except: Option<Arc<Peer>>,
    /// Of a group: its member changes when the message was stored.
    pub mver: u64,
}

impl Held {
    /// Whether it was sent over this connection.
    #[must_use]
    pub(crate) fn is_own(&self, peer: &Peer) -> bool {
        self.except.as_ref().is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), peer))
    }
}

/// One conversation's hole.
#[derive(Debug)]
struct Gap {
    held: BTreeMap<(u64, i64), Held>,
    bytes: usize,
    /// Of a group: the newest state that anything here is of.
    mver: u64,
    /// The log is to be read whatever waits here.
    unread: bool,
    /// Monotonic ms of the time to read the log.
    due: u64,
    /// It is being read, until this monotonic ms at the latest.
    reading: Option<u64>,
}

impl Gap {
    /// When somebody may begin to read the log.
    fn at(&self) -> u64 {
        self.reading.unwrap_or(self.due)
    }

    fn hold(&mut self, held: Held) {
        let Some(mark) = &held.frame.mark else { return };
        let place = (mark.epoch, mark.seq);
        let size = |held: Option<Held>| held.map_or(0, |held| held.frame.bytes.len());
        self.bytes += held.frame.bytes.len();
        self.mver = self.mver.max(held.mver);
        self.bytes -= size(self.held.insert(place, held));
        // The oldest go: the newest shows that they are missing.
        while self.held.len() > 1 && (self.held.len() > MAX_HELD || self.bytes > MAX_HELD_BYTES) {
            self.bytes -= size(self.held.pop_first().map(|(_, held)| held));
        }
    }
}

/// All of them; few, if any.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    map: Mutex<BTreeMap<ConversationId, Gap>>,
    open: AtomicUsize,
    /// Told when there is a new one.
    pub(crate) opened: Notify,
    /// How often the log was read for one.
    #[cfg(test)]
    pub(crate) read: AtomicUsize,
}

impl Gaps {
    /// Whether there are any: what every delivery asks.
    #[must_use]
    pub(crate) fn any(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Notes a hole, to be read from the log at `due` (monotonic ms) unless it
    /// closes before; a message that came too early waits behind it.
    pub(crate) fn note(&self, conversation: &ConversationId, due: u64, held: Option<Held>) {
        self.at(conversation, due, |gap| match held {
            Some(held) => gap.hold(held),
            None => gap.unread = true,
        });
    }

    /// Notes that what is known of a group is older than `mver`.
    pub(crate) fn outdated(&self, group: &ConversationId, mver: u64, now_ms: u64) {
        self.at(group, now_ms, |gap| {
            gap.unread = true;
            gap.mver = gap.mver.max(mver);
        });
    }

    /// Changes a conversation's hole, made if there is none, due by `due`.
    fn at(&self, conversation: &ConversationId, due: u64, change: impl FnOnce(&mut Gap)) {
        let mut map = self.map.lock();
        let gap = map.entry(conversation.clone()).or_insert_with(|| {
            metrics().holes.increment(1);
            Gap { held: BTreeMap::new(), bytes: 0, mver: 0, unread: false, due, reading: None }
        });
        gap.due = gap.due.min(due);
        change(gap);
        self.open.store(map.len(), Ordering::Release);
        drop(map);
        self.opened.notify_one();
    }

    /// The newest state of a group that what waits is of; 0 = none is said.
    #[must_use]
    pub(crate) fn mver(&self, conversation: &ConversationId) -> u64 {
        self.map.lock().get(conversation).map_or(0, |gap| gap.mver)
    }

    /// Every conversation with a hole.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<ConversationId> {
        self.map.lock().keys().cloned().collect()
    }

    /// What waits behind a conversation's hole, in order. It stays noted.
    #[must_use]
    pub(crate) fn held(&self, conversation: &ConversationId) -> Vec<Held> {
        self.map.lock().get(conversation).map(|gap| gap.held.values().cloned().collect()).unwrap_or_default()
    }

    /// Somebody reads the log for a hole, until `until` (monotonic ms) at the
    /// latest: nobody else does before [`Self::done`].
    pub(crate) fn take_on(&self, conversation: &ConversationId, until: u64) {
        if let Some(gap) = self.map.lock().get_mut(conversation) {
            gap.reading = Some(until);
        }
    }

    /// The log is read now: what is noted from here on is another hole.
    pub(crate) fn begin(&self, conversation: &ConversationId) {
        if let Some(gap) = self.map.lock().get_mut(conversation) {
            gap.unread = false;
        }
    }

    /// Forgets a conversation's hole, unless another one was noted meanwhile;
    /// returns what waited behind it, in order.
    pub(crate) fn close(&self, conversation: &ConversationId) -> Vec<Held> {
        let mut map = self.map.lock();
        let held = match map.get_mut(conversation) {
            Some(gap) if gap.unread || gap.reading.is_some() => {
                gap.due = if gap.unread { 0 } else { u64::MAX };
                gap.bytes = 0;
                std::mem::take(&mut gap.held)
            }
            _ => map.remove(conversation).map(|gap| gap.held).unwrap_or_default(),
        };
        self.open.store(map.len(), Ordering::Release);
        drop(map);
        self.opened.notify_one();
        held.into_values().collect()
    }

    /// Nobody reads the log any more. What is left was noted meanwhile.
    pub(crate) fn done(&self, conversation: &ConversationId) {
        let mut map = self.map.lock();
        if let Some(gap) = map.get_mut(conversation) {
            gap.reading = None;
            if !gap.unread && gap.held.is_empty() {
                map.remove(conversation);
            }
        }
        self.open.store(map.len(), Ordering::Release);
        drop(map);
        self.opened.notify_one();
    }

    /// Puts off the read of a hole.
    pub(crate) fn postpone(&self, conversation: &ConversationId, due: u64) {
        if let Some(gap) = self.map.lock().get_mut(conversation) {
            (gap.due, gap.unread) = (due, true);
        }
        // Whoever waits for the next one has to look again.
        self.opened.notify_one();
    }

    /// The conversations whose log is to be read now, and the time of the next
    /// one after.
    #[must_use]
    pub(crate) fn due(&self, now_ms: u64) -> (Vec<ConversationId>, Option<u64>) {
        let map = self.map.lock();
        let due = map.iter().filter(|(_, gap)| gap.at() <= now_ms).map(|(of, _)| of.clone()).collect();
        let next = map.values().map(Gap::at).filter(|due| *due > now_ms).min();
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_while_the_log_is_read_is_another_hole() {
        let gaps = Gaps::default();
        let conversation = ConversationId::parse("g:a").unwrap();
        gaps.note(&conversation, 5, None);
        assert_eq!(gaps.due(4), (vec![], Some(5)));
        assert_eq!(gaps.due(5), (vec![conversation.clone()], None));
        gaps.take_on(&conversation, 100);
        gaps.begin(&conversation);
        gaps.note(&conversation, 7, None);
        assert_eq!(gaps.due(8), (vec![], Some(100)), "one at a time");
        gaps.close(&conversation);
        gaps.done(&conversation);
        assert_eq!(gaps.due(8).0, std::slice::from_ref(&conversation));
        gaps.take_on(&conversation, 100);
        gaps.begin(&conversation);
        gaps.close(&conversation);
        gaps.done(&conversation);
        assert!(!gaps.any());
    }

    #[test]
    fn a_read_that_is_put_off_is_still_to_be_done() {
        let gaps = Gaps::default();
        let conversation = ConversationId::parse("g:a").unwrap();
        gaps.note(&conversation, 5, None);
        gaps.take_on(&conversation, 100);
        gaps.begin(&conversation);
        gaps.postpone(&conversation, 50);
        gaps.done(&conversation);
        assert_eq!(gaps.due(49), (vec![], Some(50)));
        gaps.take_on(&conversation, 100);
        assert_eq!(gaps.due(100).0, [conversation], "whoever read it is gone");
    }
}
