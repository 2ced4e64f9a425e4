//! What the bus may have missed, until somebody makes up for it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::telemetry::metrics;

/// Why messages for this gateway may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A source's numbers left one out.
    Hole,
    /// A source was never heard before, or not since it started.
    NewSource,
    /// The subscription, or the connection to Redis, was made anew.
    Resubscribed,
    /// The own lease had run out: nobody sent anything here.
    Lease,
}

/// What is to be made up for: any number of disturbances as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disturbance {
    /// From this time on messages may be missing, unix ms.
    pub since: i64,
    /// Why, each once.
    pub causes: Vec<Cause>,
}

impl Disturbance {
    /// Joins two: the earlier time, the causes of both.
    fn merge(slot: &mut Option<Self>, cause: Cause, since: i64) {
        let joined = slot.get_or_insert_with(|| Self { since, causes: Vec::new() });
        joined.since = joined.since.min(since);
        if !joined.causes.contains(&cause) {
            joined.causes.push(cause);
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// For the next one who asks.
    reported: Mutex<Option<Disturbance>>,
    /// Until the routes are bound again.
    held: Mutex<Option<Disturbance>>,
    /// Taken last: it is being made up for until the next one is asked for.
    taken: Mutex<Option<Disturbance>>,
    waiting: Notify,
}

/// Where disturbances are told, and where they are waited for. However many
/// come, one is pending at most. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disturbances {
    shared: Arc<Shared>,
}

impl Disturbances {
    /// Since this time (unix ms) messages may have been lost.
    pub(crate) fn report(&self, cause: Cause, since: i64) {
        count(cause);
        Disturbance::merge(&mut self.shared.reported.lock(), cause, since);
        self.shared.waiting.notify_one();
    }

    /// The same, to be made up for once the routes are bound again: until
    /// then more is missed.
    pub(crate) fn hold(&self, cause: Cause, since: i64) {
        Disturbance::merge(&mut self.shared.held.lock(), cause, since);
    }

    /// Takes what is held, before binding; to be [released](Self::release)
    /// behind it.
    pub(crate) fn take_held(&self) -> Option<Disturbance> {
        self.shared.held.lock().take()
    }

    /// Reports what was held.
    pub(crate) fn release(&self, held: Disturbance) {
        for cause in held.causes {
            self.report(cause, held.since);
        }
    }

    /// Since when something is not made up for yet, unix ms.
    pub(crate) fn open_since(&self) -> Option<i64> {
        let shared = &self.shared;
        let all = [&shared.reported, &shared.held, &shared.taken];
        all.iter().filter_map(|one| one.lock().as_ref().map(|disturbance| disturbance.since)).min()
    }

    /// Waits for one and takes it. For one caller only.
    pub(crate) async fn next(&self) -> Disturbance {
        loop {
            {
                let mut reported = self.shared.reported.lock();
                self.shared.taken.lock().clone_from(&reported);
                if let Some(disturbance) = reported.take() {
                    return disturbance;
                }
            }
            self.shared.waiting.notified().await;
        }
    }
}

fn count(cause: Cause) {
    let metrics = metrics();
    let counter = match cause {
        Cause::Hole => &metrics.reconcile_hole,
        Cause::NewSource => &metrics.reconcile_new_source,
        Cause::Resubscribed => &metrics.reconcile_resubscribed,
        Cause::Lease => &metrics.reconcile_lease,
    };
    counter.increment(1);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const NO_MORE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn many_become_one_from_the_earliest_on() {
        let disturbances = Disturbances::default();
        for (cause, since) in [(Cause::Hole, 30), (Cause::NewSource, 10), (Cause::Hole, 20)] {
            disturbances.report(cause, since);
        }
        let expected = Disturbance { since: 10, causes: vec![Cause::Hole, Cause::NewSource] };
        assert_eq!(disturbances.next().await, expected);
        assert!(timeout(NO_MORE, disturbances.next()).await.is_err(), "one was all");
        disturbances.report(Cause::Lease, 40);
        assert_eq!(disturbances.next().await.since, 40);
    }

    #[tokio::test]
    async fn what_is_held_waits_for_its_release() {
        let disturbances = Disturbances::default();
        disturbances.hold(Cause::Resubscribed, 20);
        disturbances.hold(Cause::Lease, 10);
        assert!(timeout(NO_MORE, disturbances.next()).await.is_err());
        let held = disturbances.take_held().expect("something is held");
        disturbances.hold(Cause::Resubscribed, 50);
        disturbances.release(held);
        let expected = Disturbance { since: 10, causes: vec![Cause::Resubscribed, Cause::Lease] };
        assert_eq!(disturbances.next().await, expected);
        assert!(timeout(NO_MORE, disturbances.next()).await.is_err(), "the later one is still held");
        assert_eq!(disturbances.take_held().map(|held| held.since), Some(50));
    }
}
