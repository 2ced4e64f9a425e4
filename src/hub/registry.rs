//! The map user → devices → peer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use super::gap::Gaps;
use super::outbox::{Frame, OutboxLimits};
use super::peer::Peer;
use super::rooms::Rooms;
use crate::telemetry::metrics;
use crate::types::{ConnId, DeviceId, UserId, monotonic_ms};

/// How long a bind and its registration can be apart.
const CONDEMNED_MS: u64 = 30_000;

/// The devices of one user here; almost always one.
#[derive(Debug, Clone)]
pub(crate) enum Devices {
    /// The only one.
    One(Arc<Peer>),
    /// More.
    Many(Vec<Arc<Peer>>),
}

impl Devices {
    /// Them.
    pub(crate) fn as_slice(&self) -> &[Arc<Peer>] {
        match self {
            Self::One(peer) => std::slice::from_ref(peer),
            Self::Many(peers) => peers,
        }
    }

    fn insert(&mut self, peer: Arc<Peer>) {
        let mut peers = self.as_slice().to_vec();
        peers.push(peer);
        *self = Self::Many(peers);
    }

    /// Returns whether nobody is left.
    fn remove(&mut self, gone: &Arc<Peer>) -> bool {
        let mut left: Vec<_> =
            self.as_slice().iter().filter(|peer| !Arc::ptr_eq(peer, gone)).cloned().collect();
        match (left.pop(), left.is_empty()) {
            (None, _) => return true,
            (Some(last), true) => *self = Self::One(last),
            (Some(last), false) => {
                left.push(last);
                *self = Self::Many(left);
            }
        }
        false
    }
}

/// Who won when a device was registered.
#[derive(Debug)]
pub(crate) enum Registered {
    /// The device was not here.
    New,
    /// It was: this older connection is to be ended.
    Replaced(Arc<Peer>),
    /// It is here with a later bind: the newcomer is to be ended.
    Outdated,
}

/// The connections of this gateway.
#[derive(Debug)]
pub(crate) struct Hub {
    users: DashMap<UserId, Devices, foldhash::fast::RandomState>,
    connections: AtomicUsize,
    regroupings: AtomicU64,
    limits: OutboxLimits,
    /// Groups with members online here.
    pub(crate) rooms: Rooms,
    /// Holes that connections here have seen.
    pub(crate) gaps: Gaps,
    /// Connections that were replaced before they were registered, and when,
    /// monotonic ms: their bind is known elsewhere sooner than here.
    condemned: Mutex<HashMap<ConnId, u64>>,
}

impl Hub {
    /// An empty hub whose outboxes have these bounds.
    #[must_use]
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        let shards = 128;
        let users = DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), shards);
        Self {
            users,
            connections: AtomicUsize::new(0),
            regroupings: AtomicU64::new(0),
            limits,
            rooms: Rooms::default(),
            gaps: Gaps::default(),
            condemned: Mutex::default(),
        }
    }

    /// Live connections.
    #[must_use]
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Users with at least one live connection.
    #[must_use]
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    /// How often a connection has left, or come to one who was here already.
    #[must_use]
    pub(crate) fn regroupings(&self) -> u64 {
        self.regroupings.load(Ordering::Acquire)
    }

    /// Everybody with a live connection, in order.
    #[must_use]
    pub(crate) fn everybody(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.users.iter().map(|devices| *devices.key()).collect();
        users.sort_unstable();
        users
    }

    /// Bounds of every outbox.
    #[must_use]
    pub(crate) const fn limits(&self) -> OutboxLimits {
        self.limits
    }

    /// Makes a connection reachable. Of two connections of one device the one
    /// bound later stays, by the store's clock where both have it.
    pub(crate) fn register(&self, peer: &Arc<Peer>) -> Registered {
        let mut was_here = true;
        let outcome = match self.users.entry(peer.identity.user) {
            Entry::Vacant(vacant) => {
                was_here = false;
                vacant.insert(Devices::One(Arc::clone(peer)));
                Registered::New
            }
            Entry::Occupied(mut occupied) => {
                let devices = occupied.get_mut();
                let twin =
                    devices.as_slice().iter().find(|p| p.identity.device == peer.identity.device).cloned();
                match twin {
                    Some(twin) if newer(&twin, peer) => Registered::Outdated,
                    Some(twin) => {
                        devices.insert(Arc::clone(peer));
                        devices.remove(&twin);
                        Registered::Replaced(twin)
                    }
                    None => {
                        devices.insert(Arc::clone(peer));
                        Registered::New
                    }
                }
            }
        };
        self.regroupings.fetch_add(u64::from(was_here), Ordering::AcqRel);
        if matches!(outcome, Registered::New) {
            self.count(1);
        }
        outcome
    }

    /// Takes a connection out; harmless when it was replaced already.
    pub(crate) fn remove(&self, peer: &Arc<Peer>) {
        let mut removed = false;
        if let Entry::Occupied(mut occupied) = self.users.entry(peer.identity.user) {
            removed = occupied.get().as_slice().iter().any(|p| Arc::ptr_eq(p, peer));
            if removed && occupied.get_mut().remove(peer) {
                occupied.remove();
            }
        }
        // Also where nobody is left: a seat would outlive him, and be taken
        // for his when he comes back.
        self.regroupings.fetch_add(u64::from(removed), Ordering::AcqRel);
        if removed {
            self.count(-1);
        }
    }

    /// Remembers for a while that this connection is to end as replaced.
    pub(crate) fn condemn(&self, conn: ConnId) {
        let now = monotonic_ms();
        let mut condemned = self.condemned.lock();
        condemned.retain(|_, at| now.saturating_sub(*at) < CONDEMNED_MS);
        condemned.insert(conn, now);
    }

    /// Whether it was, which is then forgotten.
    pub(crate) fn take_condemned(&self, conn: ConnId) -> bool {
        self.condemned.lock().remove(&conn).is_some()
    }

    /// Whether a user has a connection here.
    #[must_use]
    pub(crate) fn has(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    /// Whether exactly this connection is registered.
    #[must_use]
    pub(crate) fn holds(&self, peer: &Arc<Peer>) -> bool {
        self.users
            .get(&peer.identity.user)
            .is_some_and(|devices| devices.as_slice().iter().any(|held| Arc::ptr_eq(held, peer)))
    }

    /// The connections of one user.
    #[must_use]
    pub(crate) fn peers(&self, user: UserId) -> Vec<Arc<Peer>> {
        self.users.get(&user).map(|devices| devices.as_slice().to_vec()).unwrap_or_default()
    }

    /// The same without a list for the one that most users have.
    #[must_use]
    pub(crate) fn devices(&self, user: UserId) -> Option<Devices> {
        // The clone ends the guard before anything is done with it.
        self.users.get(&user).map(|devices| devices.clone())
    }

    /// The connection of one device.
    #[must_use]
    pub(crate) fn peer(&self, user: UserId, device: &DeviceId) -> Option<Arc<Peer>> {
        self.users
            .get(&user)
            .and_then(|devices| devices.as_slice().iter().find(|p| p.identity.device == *device).cloned())
    }

    /// Every connection, copied shard by shard.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut all = Vec::with_capacity(self.connections());
        for devices in &self.users {
            all.extend_from_slice(devices.as_slice());
        }
        all
    }

    /// Queues a frame for every connection of `user` but `except`; returns
    /// for how many.
    pub(crate) fn deliver(&self, user: UserId, frame: &Frame, except: Option<&Arc<Peer>>) -> usize {
        let Some(devices) = self.devices(user) else { return 0 };
        let wanted = |peer: &&Arc<Peer>| except.is_none_or(|other| !Arc::ptr_eq(peer, other));
        devices.as_slice().iter().filter(wanted).filter(|peer| peer.answer(frame.clone())).count()
    }

    /// Queues a frame for every connection; returns for how many.
    pub(crate) fn deliver_all(&self, frame: &Frame) -> usize {
        self.all().iter().filter(|peer| peer.answer(frame.clone())).count()
    }

    fn count(&self, by: isize) {
        let now = if by > 0 {
            self.connections.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.connections.fetch_sub(1, Ordering::Relaxed) - 1
        };
        metrics().connections.set(u32::try_from(now).unwrap_or(u32::MAX));
    }
}

/// Whether `a` was bound later than `b`.
fn newer(a: &Peer, b: &Peer) -> bool {
    match (a.bound(), b.bound()) {
        (0, _) | (_, 0) => a.identity.conn > b.identity.conn,
        (a, b) => a > b,
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::PeerIdentity;
    use super::*;

    fn peer(conn: u64, user: i64, device: &str, bound: u64) -> Arc<Peer> {
        let identity = PeerIdentity {
            conn: ConnId(conn),
            user: UserId::new(user).unwrap(),
            device: DeviceId::new(device).unwrap(),
            expires_at: PeerIdentity::NEVER,
        };
        Arc::new(Peer::new(identity, bound, OutboxLimits { bytes: 1 << 20, frames: 100 }))
    }

    fn hub() -> Hub {
        Hub::new(OutboxLimits { bytes: 1 << 20, frames: 100 })
    }

    #[test]
    fn the_later_bind_of_a_device_stays() {
        let hub = hub();
        let (old, new, late) = (peer(1, 7, "a", 10), peer(2, 7, "a", 20), peer(3, 7, "a", 15));
        assert!(matches!(hub.register(&old), Registered::New));
        assert!(matches!(hub.register(&new), Registered::Replaced(p) if Arc::ptr_eq(&p, &old)));
        assert!(matches!(hub.register(&late), Registered::Outdated));
        hub.remove(&old);
        assert_eq!(hub.connections(), 1);
        assert!(Arc::ptr_eq(&hub.peers(UserId::new(7).unwrap())[0], &new));
    }

    #[test]
    fn many_devices_come_and_go() {
        let hub = hub();
        let user = UserId::new(7).unwrap();
        let peers = [peer(1, 7, "a", 1), peer(2, 7, "b", 2), peer(3, 7, "c", 3)];
        for p in &peers {
            hub.register(p);
        }
        hub.register(&peer(4, 3, "a", 4));
        assert_eq!(hub.everybody(), [UserId::new(3).unwrap(), user]);
        hub.remove(&hub.peers(UserId::new(3).unwrap())[0]);
        let frame = Frame::control(bytes::Bytes::from_static(b"x"), crate::telemetry::FrameKind::Other);
        assert_eq!(hub.deliver(user, &frame, Some(&peers[1])), 2);
        for p in &peers {
            hub.remove(p);
            hub.remove(p);
        }
        assert_eq!((hub.connections(), hub.users()), (0, 0));
    }
}
