//! Who comes next, while a commit is under way.
//!
//! Work that is handed over meanwhile waits as it is. A caller that is still
//! gathering does better to wait here: what comes until the commit is done goes
//! with it, and not with the commit after the next.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longest wait: behind a disk that hangs, work is handed over all the same.
const LONGEST: Duration = Duration::from_millis(50);

/// See above.
#[derive(Debug, Default)]
pub(super) struct Turn {
    commit: Mutex<Commit>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Commit {
    is_under_way: bool,
    /// Who waits for its end.
    waiting: usize,
}

impl Turn {
    /// A commit begins.
    pub(super) fn begin(&self) {
        self.commit.lock().is_under_way = true;
    }

    /// It is done; how many will hand over their work now.
    pub(super) fn end(&self) -> usize {
        let mut commit = self.commit.lock();
        let waiting = std::mem::take(&mut *commit).waiting;
        self.ended.notify_waiters();
        waiting
    }

    /// Waits for the end of the commit that is under way, if one is, 50 ms at
    /// most.
    pub(super) async fn wait(&self) {
        // Told of every end from here on.
        let ended = self.ended.notified();
        {
            let mut commit = self.commit.lock();
            if !commit.is_under_way {
                return;
            }
            commit.waiting += 1;
        }
        if timeout(LONGEST, ended).await.is_err() {
            let mut commit = self.commit.lock();
            commit.waiting = commit.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_commit_is_waited_for_and_no_longer_than_bearable() {
        let turn = Arc::new(Turn::default());
        turn.wait().await;
        turn.begin();
        let mut first = Box::pin(turn.wait());
        let mut second = Box::pin(turn.wait());
        assert_eq!(poll!(&mut first), Poll::Pending);
        assert_eq!(poll!(&mut second), Poll::Pending);
        assert_eq!(turn.end(), 2);
        first.await;
        second.await;
        turn.begin();
        turn.wait().await;
        assert_eq!(turn.end(), 0, "who gave up is not expected");
    }
}
