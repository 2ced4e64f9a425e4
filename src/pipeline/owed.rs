//! Deliveries that are owed: stored messages whose receivers could not be
//! looked up are looked up again until the routes answer, so that a hiccup
//! between an append and its delivery costs nobody the wake-up.
//!
//! In arrival order, bounded in number and bytes. What gives way to newer ones,
//! which show that it is missing, or has waited [`GIVE_UP`], is counted and left
//! to the next message or pull.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Outgoing, Ports};
use crate::task::spawn_core;
use crate::telemetry::metrics;

/// Most deliveries that are owed.
const MAX: usize = 4_096;
/// Most bytes of their messages.
const MAX_BYTES: usize = 16 << 20;
/// Longest one is owed: by then whoever lost the store has reconciled.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Deliveries whose receivers are looked up in one round trip.
const BATCH: usize = 256;
/// Pause after a look-up without an answer.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("owed", stop, run(Arc::clone(ports)));
}

async fn run(ports: Arc<Ports>) {
    loop {
        let batch = ports.owed.take();
        if batch.is_empty() {
            ports.owed.added.notified().await;
        } else if !ports.pay(&batch).await {
            ports.owed.give_back(batch);
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}

#[derive(Debug)]
struct Debt {
    outgoing: Outgoing,
    bytes: usize,
    since: Instant,
}

#[derive(Debug, Default)]
struct Debts {
    queue: VecDeque<Debt>,
    bytes: usize,
}

/// All of them; none, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    debts: Mutex<Debts>,
    added: Notify,
}

impl Owed {
    /// Whether there are none that nobody looks up.
    pub(super) fn is_empty(&self) -> bool {
        self.debts.lock().queue.is_empty()
    }

    /// Adds one whose receivers could not be looked up.
    pub(super) fn add(&self, outgoing: &Outgoing) {
        let bytes = outgoing.envelope.encoded_len();
        let debt = Debt { outgoing: outgoing.clone(), bytes, since: Instant::now() };
        let mut debts = self.debts.lock();
        debts.bytes += bytes;
        debts.queue.push_back(debt);
        debts.shrink();
        drop(debts);
        self.added.notify_one();
    }

    /// Takes the oldest ones out.
    fn take(&self) -> Vec<Debt> {
        let mut debts = self.debts.lock();
        let count = debts.queue.len().min(BATCH);
        let batch: Vec<Debt> = debts.queue.drain(..count).collect();
        debts.bytes -= batch.iter().map(|debt| debt.bytes).sum::<usize>();
        batch
    }

    /// Puts back what could not be delivered, but for what has waited too long.
    fn give_back(&self, batch: Vec<Debt>) {
        let (overdue, left): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|debt| debt.since.elapsed() >= GIVE_UP);
        overdue.iter().for_each(give_up);
        let mut debts = self.debts.lock();
        for debt in left.into_iter().rev() {
            debts.bytes += debt.bytes;
            debts.queue.push_front(debt);
        }
        debts.shrink();
    }
}

impl Debts {
    fn shrink(&mut self) {
        while self.queue.len() > MAX || self.bytes > MAX_BYTES {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= oldest.bytes;
            give_up(&oldest);
        }
    }
}

fn give_up(debt: &Debt) {
    let users = u64::try_from(debt.outgoing.users.len()).unwrap_or(u64::MAX);
    metrics().deliveries_lookup_failed.increment(users);
}

impl Ports {
    /// Looks the receivers up again, and delivers to those elsewhere: those
    /// here have it. Returns whether the routes answered.
    async fn pay(&self, batch: &[Debt]) -> bool {
        let Ok(routes) = self.look_up(batch.iter().map(|debt| &debt.outgoing)).await else { return false };
        let mut items = Vec::new();
        for debt in batch {
            let elsewhere = self.deliver_elsewhere(&debt.outgoing, &routes, &mut items);
            metrics().deliveries_remote.increment(elsewhere.iter().sum());
        }
        self.bus.publish_all(items);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{Testbed, outgoing, pushed, user};
    use super::*;
    use crate::types::ConversationId;

    /// A world with user 1 on one gateway and user 2 on another.
    async fn world() -> (Testbed, super::super::testbed::Gateway, Arc<crate::hub::Peer>, ConversationId) {
        let bed = Testbed::new();
        let (here, there) = (bed.gateway("gw-a"), bed.gateway("gw-b"));
        let _one = bed.connect(&here, 1).await;
        let two = bed.connect(&there, 2).await;
        (bed, here, two, ConversationId::between(user(1), user(2)))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_could_not_be_looked_up_is_reached_once_routes_answer() {
        let (bed, here, two, chat) = world().await;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        start(&here.ports, &stop);
        bed.table.fail(true);
        for id in 1..=3 {
            let push = bed.append(&chat, id).await;
            here.ports.deliver(&[outgoing(&push, vec![user(1), user(2)], None)]).await;
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(pushed(&two), [0; 0]);
        bed.table.fail(false);
        sleep(PAUSE * 2).await;
        assert_eq!(pushed(&two), [1, 2, 3]);
        assert!(here.ports.owed.take().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_bounded_in_number_and_time() {
        let (bed, here, _two, chat) = world().await;
        let owed = &here.ports.owed;
        let push = bed.append(&chat, 1).await;
        for _ in 0..MAX + 10 {
            owed.add(&outgoing(&push, vec![user(2)], None));
        }
        assert_eq!(owed.debts.lock().queue.len(), MAX);
        let batch = owed.take();
        assert_eq!(batch.len(), BATCH);
        owed.give_back(batch);
        assert_eq!(owed.debts.lock().queue.len(), MAX);
        sleep(GIVE_UP).await;
        while let batch @ [_, ..] = &*owed.take() {
            assert_eq!(batch.len(), BATCH);
        }
        assert_eq!(owed.debts.lock().bytes, 0);
        owed.add(&outgoing(&push, vec![user(2)], None));
        let batch = owed.take();
        sleep(GIVE_UP).await;
        owed.give_back(batch);
        assert!(owed.take().is_empty(), "it has waited too long");
    }
}
