//! Who watches whom on this gateway, and the telling.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::{Frame, Peer};
use crate::presence::{State, Watches};
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConnId, UserId};
use crate::wire::pb::PresenceEvent;
use crate::wire::{Payload, encode, reply};

/// Connections that watch; whoever does not costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    /// Whom they watch.
    pub(crate) watches: Watches<ConnId>,
    /// Them.
    peers: HashMap<ConnId, Arc<Peer>>,
}

impl Watching {
    /// A connection watches from now on.
    pub(crate) fn admit(&mut self, peer: &Arc<Peer>) {
        self.peers.entry(peer.identity.conn).or_insert_with(|| Arc::clone(peer));
    }

    /// A connection is gone, or watches nobody any more.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.peers.remove(&conn).is_some() {
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
