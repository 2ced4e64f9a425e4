//! The verbs *attach* and *detach*: a connection becomes reachable, and
//! ceases to be.

use std::sync::Arc;

use super::{Pipeline, Ports};
use crate::hub::{Ending, Peer, PeerIdentity, Registered};
use crate::route::{Binding, Bound};
use crate::store::Conversations;
use crate::types::CloseReason;

/// Most conversations that `Ready` names.
const READY_CONVERSATIONS: usize = 100;

/// A connection that is reachable now.
#[derive(Debug)]
pub(crate) struct Attached {
    /// What the rest of the gateway holds of it.
    pub peer: Arc<Peer>,
    /// Where its user's conversations stand; empty while the store is away.
    pub conversations: Conversations,
}

impl Pipeline {
    /// Binds the route, makes the connection reachable here, then reads where
    /// its conversations stand, in this order: a message stored meanwhile is
    /// either delivered live or named. While Redis is down the connection is
    /// served all the same and bound when it is back.
    pub(crate) async fn attach(&self, identity: PeerIdentity) -> Attached {
        let ports = &self.ports;
        let binding = Binding {
            user: identity.user,
            device: identity.device.clone(),
            conn: identity.conn,
            bound: 0,
            age: 0,
        };
        let (bound, replaced) =
            match ports.routes.bind(std::slice::from_ref(&binding), false).await.as_deref() {
                Ok([Bound::Held { bound, replaced }]) => (*bound, replaced.clone()),
                _ => (0, None),
            };
        let user = identity.user;
        let device = identity.device.clone();
        let peer = Arc::new(Peer::new(identity, bound, ports.hub.limits()));
        match ports.hub.register(&peer) {
            Registered::New => {}
            Registered::Replaced(old) => {
                old.outbox.end(Ending::of(CloseReason::Replaced));
            }
            Registered::Outdated => {
                peer.outbox.end(Ending::of(CloseReason::Replaced));
            }
        }
        if ports.hub.take_condemned(peer.identity.conn) {
            // The device was bound anew elsewhere since our own bind.
            peer.outbox.end(Ending::of(CloseReason::Replaced));
        }
        if let Some(seat) = replaced.filter(|seat| seat.gateway != ports.own) {
            ports.kick_replaced(user, &device, &seat);
        }
        if bound == 0 {
            self.refresh(&peer);
        }
        // Unread is not the same as none: the client is told to ask.
        let unknown = |_| Conversations { positions: Vec::new(), has_more: true };
        let conversations =
            ports.store.conversations(user, 0, READY_CONVERSATIONS).await.unwrap_or_else(unknown);
        Attached { peer, conversations }
    }

    /// Takes a connection out; its route is removed unless another has it.
    pub(crate) fn detach(&self, peer: &Arc<Peer>, reason: CloseReason) {
        self.ports.hub.remove(peer);
        if !matches!(reason, CloseReason::Replaced | CloseReason::Superseded) {
            self.depart(peer);
        }
    }
}

/// The claim of a connection to its route.
pub(super) fn binding(peer: &Peer) -> Binding {
    Binding {
        user: peer.identity.user,
        device: peer.identity.device.clone(),
        conn: peer.identity.conn,
        bound: peer.bound(),
        age: peer.age_us(),
    }
}

impl Ports {
    /// Applies what a refresh or re-bind found.
    pub(super) fn settle(&self, peer: &Arc<Peer>, outcome: &Bound) {
        match outcome {
            Bound::Held { bound, replaced } => {
                peer.set_bound(*bound);
                if let Some(seat) = replaced {
                    self.kick_replaced(peer.identity.user, &peer.identity.device, seat);
                }
            }
            Bound::Refused => {
                peer.outbox.end(Ending::of(CloseReason::Replaced));
            }
            Bound::Broken => {}
        }
    }
}
