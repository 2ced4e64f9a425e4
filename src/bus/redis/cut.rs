//! The division of what a channel carries between the process that is
//! replaced and the one that replaces it.
//!
//! Both listen on the channel, and Redis delivers one channel in one order to
//! all who do, so a mark published there divides the stream alike for both:
//! the one hands out everything before it, the other everything behind it.
//! Both keep what comes behind it, because the first goes on with it should
//! the second fail.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::counter::Heard;
use crate::wire::pb::BusMessage;
use crate::wire::pb::bus_item::Item;

/// Most messages kept; more are lost, and known to be.
const MOST: usize = 65_536;

/// Where this process stands.
#[derive(Debug)]
enum State {
    /// Everything is handed out.
    Open,
    /// The mark is still to come; what comes before it is `ours`, or not.
    Before { nonce: u64, ours: bool },
    /// The mark came.
    Behind(Kept),
    /// What was kept is handed out, and from then on everything.
    Released(Kept),
}

/// What came behind the mark.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) messages: Vec<BusMessage>,
    /// There was more.
    pub(super) is_short: bool,
    /// What was heard up to the mark.
    pub(super) heard: Vec<Heard>,
}

/// Shared by the subscriber and whoever divides.
#[derive(Debug)]
pub(crate) struct Cut {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Cut {
    /// `divided` = begins behind a mark that is still to come.
    pub(super) fn new(divided: bool) -> Self {
        let state = if divided { State::Before { nonce: 0, ours: false } } else { State::Open };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// The mark to divide at.
    pub(super) fn expect(&self, mark: u64) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Before { nonce, .. } => *nonce = mark,
            other => *other = State::Before { nonce: mark, ours: true },
        }
    }

    /// Waits until the mark has come.
    pub(super) async fn passed(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            if matches!(*self.state.lock(), State::Behind(_)) {
                return;
            }
            // The sender is here: this cannot fail.
            let _ = changed.changed().await;
        }
    }

    /// What was heard up to the mark.
    pub(super) fn heard(&self) -> Vec<Heard> {
        match &*self.state.lock() {
            State::Behind(kept) => kept.heard.clone(),
            _ => Vec::new(),
        }
    }

    /// Hands out what was kept, and everything from then on. With `heard` it
    /// goes on where the other process was.
    pub(super) fn release(&self, heard: Option<Vec<Heard>>) {
        let mut state = self.state.lock();
        let mut kept = match std::mem::replace(&mut *state, State::Open) {
            State::Behind(kept) => kept,
            // The mark did not come: what is not known to be heard is lost.
            State::Before { ours: false, .. } => Kept { is_short: true, ..Kept::default() },
            State::Before { ours: true, .. } | State::Open => return,
            State::Released(kept) => kept,
        };
        kept.heard = heard.unwrap_or_default();
        *state = State::Released(kept);
        drop(state);
        self.changed.send_replace(());
    }

    /// Waits until something was released, and takes it.
    pub(super) async fn released(&self) -> Kept {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let mut state = self.state.lock();
                if let State::Released(kept) = &mut *state {
                    let kept = std::mem::take(kept);
                    *state = State::Open;
                    return kept;
                }
            }
            let _ = changed.changed().await;
        }
    }

    /// Judges a message; `Some` = it is to be handed out now. At the mark it
    /// asks what was `heard`.
    pub(super) fn judge(
        &self,
        message: BusMessage,
        heard: impl FnOnce() -> Vec<Heard>,
    ) -> Option<BusMessage> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Open => return Some(message),
            State::Before { nonce, ours } => {
                if !is_mark(&message, *nonce) {
                    return ours.then_some(message);
                }
                *state = State::Behind(Kept { heard: heard(), ..Kept::default() });
            }
            State::Behind(kept) | State::Released(kept) => {
                if kept.messages.len() < MOST {
                    kept.messages.push(message);
                } else {
                    kept.is_short = true;
                }
                return None;
            }
        }
        drop(state);
        self.changed.send_replace(());
        None
    }
}

fn is_mark(message: &BusMessage, nonce: u64) -> bool {
    let marks = |item: &Option<Item>| matches!(item, Some(Item::Mark(mark)) if mark.nonce == nonce);
    nonce != 0 && message.items.iter().any(|item| marks(&item.item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::{BusItem, Mark};

    fn message(counter: u64) -> BusMessage {
        BusMessage { counter, ..BusMessage::default() }
    }

    fn mark(nonce: u64) -> BusMessage {
        BusMessage { items: vec![BusItem { item: Some(Item::Mark(Mark { nonce })) }], ..message(0) }
    }

    /// Numbers handed out at once and after the release.
    async fn divide(cut: &Cut, stream: &[BusMessage]) -> (Vec<u64>, Vec<u64>) {
        cut.expect(7);
        let now: Vec<u64> =
            stream.iter().filter_map(|m| cut.judge(m.clone(), Vec::new)).map(|m| m.counter).collect();
        cut.release(None);
        let kept = cut.released().await.messages;
        (now, kept.into_iter().map(|m| m.counter).collect())
    }

    #[tokio::test]
    async fn one_has_what_comes_before_the_mark_and_the_other_what_comes_behind() {
        let stream = [message(1), mark(6), message(2), mark(7), message(3), message(4)];
        let (old, new) = (Cut::new(false), Cut::new(true));
        assert_eq!(divide(&old, &stream).await, (vec![1, 0, 2], vec![3, 4]));
        assert_eq!(divide(&new, &stream).await, (vec![], vec![3, 4]));
        assert!(old.judge(message(5), Vec::new).is_some() && new.judge(message(5), Vec::new).is_some());
    }

    #[tokio::test]
    async fn a_mark_that_does_not_come_changes_nothing_for_the_old_one() {
        let old = Cut::new(false);
        old.expect(7);
        assert!(old.judge(message(1), Vec::new).is_some());
        old.release(None);
        assert!(old.judge(mark(7), Vec::new).is_some(), "late: nobody divides any more");
    }
}
