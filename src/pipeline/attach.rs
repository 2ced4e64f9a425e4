//! The verbs *attach* and *detach*: a connection becomes reachable, and
//! ceases to be.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::interest::MAX_INDEX;
use super::{Pipeline, Ports};
use crate::hub::{Ending, Peer, PeerIdentity, Registered, Start};
use crate::message::{Place, message_id};
use crate::route::{Binding, Bound};
use crate::store::{Conversations, Joined, StoreError};
use crate::types::{CloseReason, ConversationId, UserId};

/// Most conversations that `Ready` names.
const READY_CONVERSATIONS: usize = 100;
/// Pause between attempts to read the groups of a connection that was made
/// while the store was away.
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// A connection that is reachable now.
#[derive(Debug)]
pub(crate) struct Attached {
    /// What the rest of the gateway holds of it.
    pub peer: Arc<Peer>,
    /// Where its user's conversations stand; empty while the store is away.
    pub conversations: Conversations,
    /// The same for the outbox.
    pub start: Start,
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
        ports.pulse.heard(user, peer.last_seen());
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
        let (conversations, start) = match ports.stand(user).await {
            Ok(stand) => stand,
            Err(error) => {
                tracing::debug!(%user, %error, "served without conversations");
                tokio::spawn(join_later(Arc::clone(ports), Arc::clone(&peer)));
                // Unread is not the same as none: the client is told to ask.
                (Conversations { positions: Vec::new(), has_more: true }, Start::default())
            }
        };
        Attached { peer, conversations, start }
    }

    /// Takes a connection out; its route is removed unless another has it.
    pub(crate) fn detach(&self, peer: &Arc<Peer>, reason: CloseReason) {
        self.ports.hub.remove(peer);
        self.ports.leave_rooms(peer);
        self.ports.pulse.forget(peer.identity.conn);
        if !matches!(reason, CloseReason::Replaced | CloseReason::Superseded) {
            self.depart(peer);
        }
    }
}

/// Registers interest in a user's groups when the store is back.
async fn join_later(ports: Arc<Ports>, peer: Arc<Peer>) {
    let user = peer.identity.user;
    while !peer.outbox.is_closed() {
        sleep(JOIN_RETRY.mul_f64(0.5 + fastrand::f64())).await;
        if ports.rejoin(&[user]).await.is_ok() {
            return;
        }
    }
}

/// The claim of a connection to its route.
pub(crate) fn binding(peer: &Peer) -> Binding {
    Binding {
        user: peer.identity.user,
        device: peer.identity.device.clone(),
        conn: peer.identity.conn,
        bound: peer.bound(),
        age: peer.age_us(),
    }
}

impl Ports {
    /// Where a user's conversations stand. Interest in his groups is
    /// registered before their tops are read.
    async fn stand(&self, user: UserId) -> Result<(Conversations, Start), StoreError> {
        let mut index = self.store.index(&[user], 0, 0, MAX_INDEX).await?.pop().unwrap_or_default();
        let groups = index.iter().filter(|conversation| conversation.is_group()).cloned().collect();
        let joined = self.join_rooms(user, groups).await?;
        let has_more = index.len() > READY_CONVERSATIONS;
        index.truncate(READY_CONVERSATIONS);
        // From here on he is in his rooms, and has to be found there by his
        // places when he leaves.
        let positions = self.store.positions(user, &index).await;
        let unread = positions.is_err();
        let positions = positions.unwrap_or_default();
        let has_more = has_more || unread;
        let behind = |(group, joined): &(ConversationId, Joined)| {
            Place::new(group, joined.top.epoch, joined.top.seq, message_id(&joined.top.server_msg_id))
        };
        let mut places: Vec<Place> = joined.iter().map(behind).collect();
        // Read later than the tops above.
        places.extend(positions.iter().filter_map(|position| {
            let conversation = ConversationId::parse(&position.conversation_id).ok()?;
            Some(Place::new(&conversation, position.epoch, position.seq, message_id(&position.server_msg_id)))
        }));
        let start = Start { places, complete: !has_more, pulling: Vec::new() };
        Ok((Conversations { positions, has_more }, start))
    }

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
