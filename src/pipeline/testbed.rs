//! Gateways in memory for tests: they share a log, the routes and the bus, and
//! run nothing by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::{Backends, Inbox, Outgoing, Ports, Tuning};
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange, Receiver};
use crate::config::Groups;
use crate::hub::{Class, Hub, OutboxLimits, Peer, PeerIdentity, Start};
use crate::message::Mark;
use crate::presence::{Presence, Rules};
use crate::route::{Binding, MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::flaky::Weather;
use crate::store::{Append, Audience, FlakyStore, History, MemoryStore, Role, Store};
use crate::telemetry::FrameKind;
use crate::types::{ConnId, ConversationId, DeviceId, Epoch, GatewayId, GatewayRef, UserId, unix_ms};
use crate::wire::pb::{BusItem, Push};
use crate::wire::{Payload, decode_message, reply};

pub(super) fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

pub(super) fn team() -> ConversationId {
    ConversationId::parse("g:team").unwrap()
}

/// What the gateways share.
pub(super) struct Testbed {
    pub model: Arc<MemoryStore>,
    pub weather: Arc<Mutex<Weather>>,
    pub table: Arc<MemoryTable>,
    exchange: Arc<MemoryExchange>,
    conns: AtomicU64,
}

/// One of them.
pub(super) struct Gateway {
    pub ports: Arc<Ports>,
    pub inbox: Arc<Inbox>,
}

impl Testbed {
    pub(super) fn new() -> Self {
        Self {
            model: Arc::new(MemoryStore::new()),
            weather: Arc::default(),
            table: Arc::new(MemoryTable::new(ROUTE_TTL)),
            exchange: Arc::default(),
            conns: AtomicU64::new(1),
        }
    }

    pub(super) fn gateway(&self, name: &str) -> Gateway {
        self.gateway_with(name, Tuning::for_tests().groups)
    }

    pub(super) fn gateway_with(&self, name: &str, groups: Groups) -> Gateway {
        let own = GatewayRef { id: GatewayId::new(name).unwrap(), epoch: Epoch(1) };
        let hub = Arc::new(Hub::new(OutboxLimits { bytes: 1 << 20, frames: 1_000 }));
        let inbox = Inbox::new(Arc::clone(&hub));
        let heard = Arc::clone(&inbox);
        let receiver: Receiver = Arc::new(move |source, item| heard.receive(source, item));
        let at = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let store = FlakyStore::shared(Arc::clone(&self.model), Arc::clone(&self.weather));
        let backends = Backends {
            presence: Presence::alone(own.clone(), Rules::default()),
            routes: Routes::Memory(MemoryRoutes::new(Arc::clone(&self.table), own.clone())),
            bus: Bus::Memory(MemoryBus::join(Arc::clone(&self.exchange), at, receiver)),
            store: Store::Flaky(store),
        };
        let tuning = Tuning { groups, ..Tuning::for_tests() };
        let ports = Arc::new(Ports::new(own, hub, backends, 0, tuning));
        inbox.open(&ports, &tokio_util::sync::CancellationToken::new());
        Gateway { ports, inbox }
    }

    /// Makes the team of these users.
    pub(super) fn make_team(&self, members: &[i64]) {
        let members: Vec<_> = members.iter().map(|id| (user(*id), Role::default())).collect();
        self.model.create(&team(), &members, History::SinceJoining);
    }

    /// A connection of a user, bound and served; it knows of no conversation.
    pub(super) async fn connect(&self, gateway: &Gateway, id: i64) -> Arc<Peer> {
        let peer = self.arrive(gateway, id).await;
        gateway.ports.open(&peer, Vec::new(), Start { complete: true, ..Start::default() });
        peer
    }

    /// A connection that is bound, and not told `Ready` yet.
    pub(super) async fn arrive(&self, gateway: &Gateway, id: i64) -> Arc<Peer> {
        let conn = ConnId(self.conns.fetch_add(1, Ordering::Relaxed));
        let device = DeviceId::new(&format!("d-{conn}")).unwrap();
        let identity =
            PeerIdentity { conn, user: user(id), device: device.clone(), expires_at: PeerIdentity::NEVER };
        let ports = &gateway.ports;
        let peer = Arc::new(Peer::new(identity, 1, ports.hub.limits()));
        ports.hub.register(&peer);
        let binding = Binding { user: user(id), device, conn, bound: 0, age: 0 };
        ports.routes.bind(&[binding], false).await.unwrap();
        peer
    }

    /// Appends a message of user 1, and delivers it to nobody.
    pub(super) async fn append(&self, conversation: &ConversationId, id: i64) -> Push {
        let append = Append {
            conversation: conversation.clone(),
            from: user(1),
            client_msg_id: format!("m-{id}"),
            server_msg_id: id.to_string(),
            content_hash: 1,
            server_time: unix_ms(),
            push: Push {
                conversation_id: conversation.to_string(),
                server_msg_id: id.to_string(),
                from_user_id: 1,
                ..Push::default()
            },
        };
        let store = Store::Flaky(FlakyStore::shared(Arc::clone(&self.model), Arc::default()));
        let done = store.append(&[&append]).await;
        assert!(done.outcomes.iter().all(Result::is_ok));
        self.model.all(conversation).pop().unwrap()
    }
}

impl Gateway {
    /// User 1 says something in the team over the API here, and it is delivered.
    pub(super) async fn say(&self, bed: &Testbed, id: i64) -> Push {
        let push = bed.append(&team(), id).await;
        self.deliver(bed, &push).await;
        push
    }

    /// Delivers what was appended to the team.
    pub(super) async fn deliver(&self, bed: &Testbed, push: &Push) {
        let audience = bed.model.roster(&team(), &[]).map(|roster| Arc::new(roster.audience));
        self.ports.deliver(&[outgoing(push, Vec::new(), audience)]).await;
    }

    /// Takes one item off the bus.
    pub(super) fn receive(&self, item: crate::wire::pb::bus_item::Item) {
        self.inbox.receive(&self.ports.own.id, BusItem { item: Some(item) });
    }
}

/// A stored message on its way.
pub(super) fn outgoing(push: &Push, users: Vec<UserId>, audience: Option<Arc<Audience>>) -> Outgoing {
    let mark = Mark::of(push).map(Arc::new);
    let envelope = reply("", Payload::Push(push.clone()));
    let (class, kind) = (Class::Push, FrameKind::Push);
    Outgoing { users, except: None, envelope, class, kind, mark, audience }
}

/// What a connection was told to pull since the last look: the tops.
pub(super) fn hinted(peer: &Peer) -> Vec<i64> {
    let top = |payload| if let Payload::Hint(hint) = payload { Some(hint.top_seq) } else { None };
    received(peer).into_iter().filter_map(top).collect()
}

/// The seqs that were pushed to a connection since the last look.
pub(super) fn pushed(peer: &Peer) -> Vec<i64> {
    let seq = |payload| if let Payload::Push(push) = payload { Some(push.seq) } else { None };
    received(peer).into_iter().filter_map(seq).collect()
}

/// What a connection was sent since the last look.
pub(super) fn received(peer: &Peer) -> Vec<Payload> {
    let queue = peer.outbox.take(Waker::noop()).queue;
    let bytes = queue.iter().map(|frame| frame.bytes.len()).sum();
    let payloads = queue.iter().map(|frame| decode_message(&frame.bytes).unwrap().payload.unwrap()).collect();
    peer.outbox.restore(std::collections::VecDeque::new(), bytes, queue.len(), 0);
    payloads
}
