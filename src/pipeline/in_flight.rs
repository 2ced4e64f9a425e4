//! Messages handed to the store and not delivered yet, by lane.
//!
//! Who reads the log for a hole may find one of them there. Its delivery says
//! over which connection it came, which is given no copy: until then nobody
//! is.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::lane::LANES;

/// Longest wait: a send whose outcome is not known is tried again for longer.
const LONGEST: Duration = Duration::from_secs(1);

/// See above.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Message ids.
    lanes: [Mutex<Vec<i64>>; LANES],
    changed: Notify,
}

impl InFlight {
    /// What is of a lane from now on; what was is delivered, or was refused.
    pub(super) fn set(&self, lane: usize, ids: impl IntoIterator<Item = i64>) {
        let Some(lane) = self.lanes.get(lane) else { return };
        let mut known = lane.lock();
        known.clear();
        known.extend(ids);
        drop(known);
        self.changed.notify_waiters();
    }

    /// Which of these are in flight.
    pub(super) fn of(&self, ids: &HashSet<i64>) -> HashSet<i64> {
        let among = |lane: &Mutex<Vec<i64>>| -> Vec<i64> {
            lane.lock().iter().filter(|id| ids.contains(id)).copied().collect()
        };
        self.lanes.iter().flat_map(among).collect()
    }

    /// Waits until none of these is in flight any more, 1 s at most.
    pub(super) async fn landed(&self, mut ids: HashSet<i64>) {
        let landed = async {
            loop {
                // Told of every change from here on.
                let changed = self.changed.notified();
                ids = self.of(&ids);
                if ids.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(LONGEST, landed).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_is_waited_for_and_no_longer_than_bearable() {
        let in_flight = InFlight::default();
        in_flight.set(1, [7, 8]);
        in_flight.landed([6, 9].into()).await;
        let mut landed = Box::pin(in_flight.landed([6, 7].into()));
        assert!(poll!(&mut landed).is_pending());
        in_flight.set(0, [5]);
        assert!(poll!(&mut landed).is_pending(), "it was another lane");
        in_flight.set(1, [9]);
        landed.await;
        let started = Instant::now();
        in_flight.landed([9].into()).await;
        assert_eq!(started.elapsed(), LONGEST);
    }
}
