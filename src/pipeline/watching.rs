//! Who watches whom on this gateway, and the telling.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::hub::{Frame, Peer};
use crate::presence::{State, Watches};
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConnId, UserId, monotonic_ms};
use crate::wire::pb::PresenceEvent;
use crate::wire::{Payload, encode, reply};

/// Time after which a watcher is judged again, ms.
pub(super) const JUDGED_MS: u64 = 300_000;

/// Connections that watch; whoever does not costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    /// Whom they watch.
    pub(crate) watches: Watches<ConnId>,
    /// Them.
    peers: HashMap<ConnId, Arc<Peer>>,
    /// When each is to be judged again, monotonic ms, the first first.
    due: VecDeque<(u64, ConnId)>,
    /// Those that are not to wait for that.
    doubted: HashSet<ConnId>,
    /// Whose judgement is under way, unless it has asked for more since.
    judged: Option<ConnId>,
}

impl Watching {
    /// A connection watches from now on.
    pub(crate) fn admit(&mut self, peer: &Arc<Peer>) {
        let conn = peer.identity.conn;
        if self.peers.insert(conn, Arc::clone(peer)).is_none() {
            self.due.push_back((monotonic_ms().saturating_add(JUDGED_MS), conn));
        }
        if self.judged == Some(conn) {
            self.judged = None;
            self.doubt(conn);
        }
    }

    /// A watcher is judged soon.
    pub(super) fn doubt(&mut self, conn: ConnId) {
        if self.peers.contains_key(&conn) {
            self.doubted.insert(conn);
        }
    }

    /// Whoever watches this user is judged soon.
    pub(super) fn doubt_watchers(&mut self, user: UserId) {
        self.doubted.extend(self.watches.watchers(user));
    }

    /// Who is judged next, and whom it watches.
    pub(super) fn next_judged(&mut self, now_ms: u64) -> Option<(Arc<Peer>, Vec<UserId>)> {
        loop {
            let doubted = self.doubted.iter().next().copied();
            let conn = match doubted.filter(|conn| self.doubted.remove(conn)) {
                Some(conn) => conn,
                None => {
                    let (_, conn) = *self.due.front().filter(|(due, _)| *due <= now_ms)?;
                    self.due.pop_front();
                    if self.peers.contains_key(&conn) {
                        self.due.push_back((now_ms.saturating_add(JUDGED_MS), conn));
                    }
                    conn
                }
            };
            let users = self.watches.users(conn);
            if let Some(peer) = self.peers.get(&conn).filter(|_| !users.is_empty()) {
                self.judged = Some(conn);
                return Some((Arc::clone(peer), users));
            }
        }
    }

    /// A watcher may not watch these, as was found; whether it watched any.
    pub(super) fn judge(&mut self, conn: ConnId, hidden: &[UserId]) -> bool {
        let holds = self.judged.take() == Some(conn) && !hidden.is_empty();
        if holds {
            self.watches.end(conn, hidden);
        }
        holds
    }

    /// A connection is gone, or watches nobody any more.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.peers.remove(&conn).is_some() {
            self.doubted.remove(&conn);
            self.watches.end(conn, &[]);
        }
    }

    /// Takes states in, and tells whoever watches. An event that a slow reader
    /// has no room for is made up for later, by what is so then.
    pub(super) fn take_in(&mut self, states: &[(UserId, State)]) {
        for (user, state) in states {
            let mut late = Vec::new();
            let watchers = self.watches.change(*user, state.clone());
            if watchers.is_empty() {
                continue;
            }
            let frame = ephemeral(*user, state);
            for conn in watchers {
                let Some(peer) = self.peers.get(conn) else { continue };
                if !tell(peer, frame.clone()) {
                    late.push(*conn);
                }
            }
            late.into_iter().for_each(|conn| self.watches.missed(conn, *user));
        }
    }

    /// Tells what there was no room for.
    pub(super) fn retry(&mut self) {
        for (conn, user, state) in self.watches.take_missed() {
            let told = self.peers.get(&conn).is_none_or(|peer| tell(peer, ephemeral(user, &state)));
            if !told {
                self.watches.missed(conn, user);
            }
        }
    }
}

fn tell(peer: &Peer, frame: Frame) -> bool {
    let told = peer.answer(frame);
    let m = metrics();
    if told { &m.presence.events } else { &m.presence.dropped_slow }.increment(1);
    told
}

fn event(user: UserId, state: &State) -> PresenceEvent {
    PresenceEvent {
        user_id: user.get(),
        online: state.online,
        since: state.since,
        device_ids: state.devices.iter().map(ToString::to_string).collect(),
        version: state.version,
    }
}

fn ephemeral(user: UserId, state: &State) -> Frame {
    Frame::ephemeral(encode(&reply("", Payload::PresenceEvent(event(user, state)))))
}

/// What a request is answered with.
pub(super) fn answer(trace_id: &str, user: UserId, state: &State) -> Frame {
    let bytes = encode(&reply(trace_id, Payload::PresenceEvent(event(user, state))));
    Frame::control(bytes, FrameKind::Other)
}
