//! Presence as records, both ways: who is online, where nobody else knows, and
//! who watches whom.
//!
//! A build that does not know these records skips them: then those who are
//! connected are heard anew, and who watched is asked to again by nobody.

use std::collections::HashMap;
use std::sync::Arc;

use super::HandoverError;
use crate::hub::Peer;
use crate::pipeline::Ports;
use crate::presence::{CarriedOnline, Presence, State};
use crate::types::{ConnId, DeviceId, UserId};
use crate::wire::pb::handover_record::Record;
use crate::wire::pb::{HandoverHeard, HandoverOnline, HandoverWatched, HandoverWatcher};

/// Users of one record.
const CHUNK: usize = 10_000;

/// Everything there is to hand over.
pub(super) fn records(ports: &Ports) -> Vec<Record> {
    if !ports.presence_config.enabled {
        return Vec::new();
    }
    let mut records = match &*ports.presence {
        Presence::Memory(presence) => of_online(&presence.carry()),
        // What is in Redis is still there.
        Presence::Redis(_) => Vec::new(),
    };
    let watching = ports.pulse.watching.lock();
    records.extend(watching.watches.states().iter().map(|(user, state)| of_watched(*user, state)));
    records.extend(watching.watches.carry().into_iter().map(|(conn, users)| {
        let users = users.iter().map(|user| user.get()).collect();
        Record::Watcher(HandoverWatcher { conn: conn.0, users })
    }));
    records
}

fn of_online(carried: &CarriedOnline) -> Vec<Record> {
    let heard = |(user, at, version): &(UserId, i64, u64)| HandoverHeard {
        user: user.get(),
        at: *at,
        version: *version,
    };
    let left = |(user, at): &(UserId, i64)| HandoverHeard { user: user.get(), at: *at, version: 0 };
    let common = HandoverOnline {
        version: carried.version,
        stepped: carried.stepped,
        held: carried.held,
        ..HandoverOnline::default()
    };
    let online = carried
        .online
        .chunks(CHUNK)
        .map(|users| HandoverOnline { heard: users.iter().map(heard).collect(), ..common.clone() });
    let gone = carried
        .left
        .chunks(CHUNK)
        .map(|users| HandoverOnline { left: users.iter().map(left).collect(), ..common.clone() });
    std::iter::once(common.clone()).chain(online).chain(gone).map(Record::Online).collect()
}

fn of_watched(user: UserId, state: &State) -> Record {
    Record::Watched(HandoverWatched {
        user: user.get(),
        online: state.online,
        since: state.since,
        version: state.version,
        devices: state.devices.iter().map(ToString::to_string).collect(),
    })
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    online: CarriedOnline,
    states: HashMap<UserId, State>,
    watchers: Vec<(ConnId, Vec<UserId>)>,
}

fn user(id: i64) -> Result<UserId, HandoverError> {
    UserId::new(id).map_err(|error| HandoverError::State(error.to_string()))
}

impl Arriving {
    pub(super) fn online(&mut self, record: &HandoverOnline) -> Result<(), HandoverError> {
        for heard in &record.heard {
            self.online.online.push((user(heard.user)?, heard.at, heard.version));
        }
        for left in &record.left {
            self.online.left.push((user(left.user)?, left.at));
        }
        self.online.version = record.version;
        self.online.stepped = record.stepped;
        self.online.held = record.held;
        Ok(())
    }

    pub(super) fn watched(&mut self, record: &HandoverWatched) -> Result<(), HandoverError> {
        let devices = record.devices.iter().filter_map(|id| DeviceId::new(id).ok()).collect();
        let HandoverWatched { online, since, version, .. } = *record;
        self.states.insert(user(record.user)?, State { online, since, version, devices });
        Ok(())
    }

    pub(super) fn watcher(&mut self, record: &HandoverWatcher) -> Result<(), HandoverError> {
        let users = record.users.iter().map(|id| user(*id)).collect::<Result<_, _>>()?;
        self.watchers.push((ConnId(record.conn), users));
        Ok(())
    }

    /// Puts it in place; who watched and has not come along watches no more.
    pub(super) fn place(self, ports: &Ports, peers: &[Arc<Peer>]) {
        if !ports.presence_config.enabled {
            return;
        }
        if let Presence::Memory(presence) = &*ports.presence {
            presence.resume(self.online);
        }
        if self.watchers.is_empty() {
            return;
        }
        let peers: HashMap<ConnId, &Arc<Peer>> =
            peers.iter().map(|peer| (peer.identity.conn, peer)).collect();
        let watching = &mut ports.pulse.watching.lock();
        for (conn, users) in &self.watchers {
            if let Some(peer) = peers.get(conn) {
                watching.admit(peer);
                watching.watches.resume(*conn, users, &self.states);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_goes_there_and_back_unchanged() {
        let one = UserId::new(1).unwrap();
        let carried = CarriedOnline {
            online: (1..25_000).map(|id| (UserId::new(id).unwrap(), 1_000 + id, 7)).collect(),
            left: vec![(one, 900)],
            version: 8,
            stepped: 2_000,
            held: 3_000,
        };
        let state =
            State { online: true, since: 5, version: 6, devices: vec![DeviceId::new("phone").unwrap()] };
        let mut arriving = Arriving::default();
        for record in of_online(&carried).into_iter().chain([of_watched(one, &state)]) {
            match record {
                Record::Online(record) => arriving.online(&record).unwrap(),
                Record::Watched(record) => arriving.watched(&record).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(arriving.online, carried);
        assert_eq!(arriving.states, HashMap::from([(one, state)]));
        arriving.watcher(&HandoverWatcher { conn: 7, users: vec![1] }).unwrap();
        assert_eq!(arriving.watchers, [(ConnId(7), vec![one])]);
        assert!(arriving.watcher(&HandoverWatcher { conn: 7, users: vec![0] }).is_err());
    }
}
