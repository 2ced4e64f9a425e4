//! The verb *pulse*: once a second the gateway says in one round trip whom it
//! heard and who left it, and learns who came and went.
//!
//! What is heard costs a connection nothing: the wheel, which looks at every
//! connection anyway, says so here. Pub/sub is a wake-up only: a part of those
//! who are watched is looked at in each round, in turn, and after a
//! disturbance of the bus all of them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::watching::Watching;
use super::{Pipeline, Ports};
use crate::bus::Destination;
use crate::hub::Peer;
use crate::presence::{Change, Farewell, Heard, Look, PresenceError, State, Step, Stepped};
use crate::route::Unbound;
use crate::task::spawn_core;
use crate::telemetry::metrics;
use crate::types::{ConnId, DeviceId, UserId, monotonic_ms};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, PresenceChange, PresenceChanges};

const EVERY: Duration = Duration::from_secs(1);
/// Most users said to have been heard in one round: others want a word with
/// Redis too.
const HEARD: usize = 10_000;
/// Watched users that are looked at in one round, and after a disturbance.
const LOOKS: usize = 256;
const URGENT_LOOKS: usize = 4_096;
/// Most farewells kept while there is no answer; the window does the rest.
const FAREWELLS: usize = 65_536;
/// By how much a goodbye is taken to be older than it is, ms: who is bound
/// right behind it was heard after it, and both are told to the millisecond
/// only, by two clocks.
const CLEARANCE_MS: i64 = 2;
/// Most users without a connection kept.
const STRANGERS: usize = 65_536;
/// Most changes of one bus item.
const CHANGES: usize = 500;

/// When each user was heard, monotonic ms.
type HeardAt = HashMap<UserId, u64, foldhash::fast::RandomState>;

/// What is to be said in the next round, and who watches.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Nothing is kept, said or told.
    is_off: bool,
    heard: Mutex<HeardAt>,
    farewells: Mutex<Vec<Farewell>>,
    /// Who watches whom here.
    pub(crate) watching: Mutex<Watching>,
    /// Users online in all gateways, as the last round said.
    online: AtomicU64,
    /// All that are watched are to be looked at.
    doubts: AtomicBool,
    /// Another process is about to take over: nothing is said or told.
    is_still: AtomicBool,
    /// Held by a round.
    turn: RwLock<()>,
}

impl Pulse {
    /// Of a gateway that keeps presence, or does not.
    pub(super) fn new(is_kept: bool) -> Self {
        Self { is_off: !is_kept, ..Self::default() }
    }

    /// A user was heard, at `at_ms` (monotonic).
    pub(crate) fn heard(&self, user: UserId, at_ms: u64) {
        if self.is_off {
            return;
        }
        let mut heard = self.heard.lock();
        let at = heard.entry(user).or_default();
        *at = at_ms.max(*at);
    }

    /// Some of those who were heard, or all.
    fn take_heard(&self) -> HeardAt {
        let mut heard = self.heard.lock();
        if heard.len() <= HEARD {
            // The next round will have about as many.
            let next = HeardAt::with_capacity_and_hasher(heard.len(), Default::default());
            return std::mem::replace(&mut *heard, next);
        }
        // Others each time, so that everybody has his turn.
        let skipped = fastrand::usize(..=heard.len() - HEARD);
        let some = heard.iter().skip(skipped).take(HEARD);
        let taken: HeardAt = some.map(|(user, at)| (*user, *at)).collect();
        heard.retain(|user, _| !taken.contains_key(user));
        taken
    }

    /// The last devices of these users have left.
    fn left(&self, farewells: Vec<Farewell>) {
        let mut kept = self.farewells.lock();
        let room = FAREWELLS.saturating_sub(kept.len());
        let dropped = farewells.len().saturating_sub(room);
        kept.extend(farewells.into_iter().take(room));
        metrics().presence.dropped_full.increment(u64::try_from(dropped).unwrap_or(u64::MAX));
    }

    /// Changes may have been missed.
    pub(crate) fn doubt(&self) {
        self.watching.lock().watches.start_over();
        self.doubts.store(true, Ordering::Release);
    }

    /// A connection is gone.
    pub(super) fn forget(&self, conn: ConnId) {
        self.watching.lock().forget(conn);
    }

    /// Users online in all gateways, as far as is known; `None` = presence is
    /// off.
    #[must_use]
    pub(crate) fn online(&self) -> Option<u64> {
        (!self.is_off).then(|| self.online.load(Ordering::Relaxed))
    }

    /// Not while there is a round, and none meanwhile; `None` = nothing is
    /// said or told.
    pub(super) async fn turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let turn = self.turn.read().await;
        (!self.is_still.load(Ordering::Acquire)).then_some(turn)
    }

    /// Nothing is said or told from now on: another process does.
    pub(crate) fn hold(&self) {
        self.is_still.store(true, Ordering::Release);
    }

    /// Ends a [`Self::hold`]. What was missed meanwhile is looked up.
    pub(crate) fn go_on(&self) {
        self.doubt();
        self.is_still.store(false, Ordering::Release);
    }
}

impl Pipeline {
    /// A connection was heard lately.
    pub(crate) fn pulse(&self, peer: &Peer) {
        self.ports.pulse.heard(peer.identity.user, peer.last_seen());
    }

    /// A user without a connection says that it is there. `false` = there are
    /// too many.
    pub(crate) fn heard_outside(&self, user: UserId) -> bool {
        if self.ports.pulse.heard.lock().len() >= self.ports.hub.users() + STRANGERS {
            metrics().presence.dropped_full.increment(1);
            return false;
        }
        self.ports.pulse.heard(user, monotonic_ms());
        true
    }

    /// Says what is still to be said, before the end.
    pub(crate) async fn last_pulse(&self) {
        if !self.ports.pulse.farewells.lock().is_empty() {
            self.ports.beat().await;
        }
    }
}

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("pulse", stop, run(Arc::clone(ports)));
}

async fn run(ports: Arc<Ports>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let _turn = ports.pulse.turn.write().await;
        if !ports.pulse.is_still.load(Ordering::Acquire) {
            ports.beat().await;
        }
    }
}

impl Ports {
    /// Says what there is to say, and then nothing more.
    pub(super) async fn hold_pulse(&self) {
        self.pulse.hold();
        let _turn = self.pulse.turn.write().await;
        if !self.pulse.is_off {
            self.beat().await;
        }
    }

    /// Takes note of who has left altogether.
    pub(super) fn note_departed(&self, users: impl Iterator<Item = UserId>, unbound: &[Unbound]) {
        if self.pulse.is_off {
            return;
        }
        let farewell = |(user, unbound): (UserId, &Unbound)| match *unbound {
            Unbound::Last { at } => {
                let at = i64::try_from(at / 1_000).unwrap_or(0).saturating_sub(CLEARANCE_MS);
                Some(Farewell { user, at })
            }
            Unbound::NotOurs | Unbound::Removed => None,
        };
        let farewells: Vec<Farewell> = users.zip(unbound).filter_map(farewell).collect();
        {
            // Said later than the goodbye, it would undo it.
            let mut heard = self.pulse.heard.lock();
            for gone in farewells.iter().filter(|gone| !self.hub.has(gone.user)) {
                heard.remove(&gone.user);
            }
        }
        self.pulse.left(farewells);
    }

    /// One round.
    pub(super) async fn beat(&self) {
        let pulse = &self.pulse;
        let (mut heard, farewells) = (pulse.take_heard(), std::mem::take(&mut *pulse.farewells.lock()));
        // Of an outage of Redis: it says nothing of who is here now.
        let window_ms = u64::try_from(self.presence_config.window.as_millis()).unwrap_or(u64::MAX);
        let begun = monotonic_ms();
        heard.retain(|_, at| begun.saturating_sub(*at) < window_ms);
        let urgent = pulse.doubts.load(Ordering::Acquire);
        let (watching, look, is_all) = {
            let watches = &mut pulse.watching.lock().watches;
            let (look, is_all) = watches.next(if urgent { URGENT_LOOKS } else { LOOKS });
            metrics().presence.watched.set(u32::try_from(watches.watched()).unwrap_or(u32::MAX));
            (!watches.is_empty(), look, is_all)
        };
        let now_ms = monotonic_ms();
        let age = |at: u64| i64::try_from(now_ms.saturating_sub(at)).unwrap_or(i64::MAX);
        let said: Vec<Heard> =
            heard.iter().map(|(user, at)| Heard { user: *user, age_ms: age(*at) }).collect();
        let step = Step { heard: &said, farewells: &farewells, watching, look: &look };
        match self.step(step).await {
            Ok(look) => {
                metrics().presence.heartbeats.increment(u64::try_from(said.len()).unwrap_or(u64::MAX));
                // A look that was not settled has to be had again.
                if urgent && is_all && look.is_settled {
                    pulse.doubts.store(false, Ordering::Release);
                }
                self.absorb(&look).await;
            }
            Err(error) => {
                tracing::debug!(%error, "presence is not told; it is tried again");
                {
                    let mut newer = pulse.heard.lock();
                    for (user, at) in heard {
                        newer.entry(user).or_insert(at);
                    }
                }
                pulse.left(farewells);
                pulse.watching.lock().watches.start_over();
            }
        }
        pulse.watching.lock().retry();
    }

    /// Says something, and tells whoever watches of the changes it makes.
    pub(super) async fn step(&self, step: Step<'_>) -> Result<Look, PresenceError> {
        let started = Instant::now();
        let stepped = self.presence.step(step).await;
        metrics().presence.flush_seconds.record(started.elapsed());
        let (stepped, look) = stepped.inspect_err(|_| metrics().presence.errors.increment(1))?;
        self.pulse.online.store(stepped.online, Ordering::Relaxed);
        metrics().presence.online.set(u32::try_from(stepped.online).unwrap_or(u32::MAX));
        self.tell_changes(&stepped);
        Ok(look)
    }

    fn tell_changes(&self, Stepped { changes, watching, .. }: &Stepped) {
        for change in changes {
            let m = metrics();
            if change.online { &m.presence.came } else { &m.presence.went }.increment(1);
        }
        let described: Vec<_> = changes.iter().map(|change| self.describe(change)).collect();
        let mut items = Vec::new();
        for gateway in watching {
            if *gateway == self.own {
                self.pulse.watching.lock().take_in(&described);
                continue;
            }
            let to = Destination { gateway: gateway.id.clone(), epoch: gateway.epoch };
            items.extend(described.chunks(CHANGES).map(|changes| {
                let changes = PresenceChanges { changes: changes.iter().map(of_change).collect() };
                (to.clone(), BusItem { item: Some(Item::Presence(changes)) })
            }));
        }
        if !items.is_empty() {
            self.bus.publish_all(items);
        }
    }

    /// Who comes online does so with a device here, as a rule.
    fn describe(&self, change: &Change) -> (UserId, State) {
        let Change { user, online, since, version } = *change;
        let devices = if online { self.hub.peers(user) } else { Vec::new() };
        let devices = devices.iter().map(|peer| peer.identity.device.clone()).collect();
        (user, State { online, since, version, devices })
    }

    /// Takes in what was read of those who are watched, with their devices.
    pub(super) async fn absorb(&self, look: &Look) -> HashMap<UserId, Vec<DeviceId>> {
        let mut news = self.pulse.watching.lock().watches.news(look);
        if news.is_empty() {
            return HashMap::new();
        }
        let users: Vec<UserId> =
            news.iter().filter(|(_, state)| state.online).map(|(user, _)| *user).collect();
        let devices = self.devices_of(&users).await;
        for (user, state) in &mut news {
            state.devices = devices.get(user).cloned().unwrap_or_default();
        }
        self.pulse.watching.lock().take_in(&news);
        devices
    }

    /// Where nothing is known there are none.
    pub(super) async fn devices_of(&self, users: &[UserId]) -> HashMap<UserId, Vec<DeviceId>> {
        if users.is_empty() {
            return HashMap::new();
        }
        let routes = self.routes.query(users).await.unwrap_or_default();
        let devices = |route: crate::route::Route| route.devices.into_iter().map(|d| d.device).collect();
        users.iter().copied().zip(routes.into_iter().map(devices)).collect()
    }

    /// Another gateway tells of changes.
    pub(super) fn presence_changed(&self, changes: &PresenceChanges) {
        let changes: Vec<_> = changes.changes.iter().filter_map(to_change).collect();
        self.pulse.watching.lock().take_in(&changes);
    }
}

fn of_change((user, state): &(UserId, State)) -> PresenceChange {
    PresenceChange {
        user_id: user.get(),
        online: state.online,
        since: state.since,
        version: state.version,
        device_ids: state.devices.iter().map(ToString::to_string).collect(),
    }
}

/// One that makes no sense is none.
fn to_change(change: &PresenceChange) -> Option<(UserId, State)> {
    let devices = change.device_ids.iter().filter_map(|id| DeviceId::new(id).ok()).collect();
    let state = State { online: change.online, since: change.since, version: change.version, devices };
    Some((UserId::new(change.user_id).ok()?, state))
}
