//! Some gateways in one process, over one store, one table of routes and a
//! bus that cannot be relied upon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::trace::Trace;
use crate::bus::faulty::{Faults, FaultyBus, FaultyExchange};
use crate::bus::{Bus, Destination, Receiver};
use crate::hub::Hub;
use crate::pipeline::{Backends, Inbox, Pipeline, Ports, Tuning};
use crate::presence::{Presence, Rules};
use crate::route::{MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::flaky::Weather;
use crate::store::{FlakyStore, History, MemoryStore, Role, Store};
use crate::types::{ConnId, ConversationId, Epoch, GatewayId, GatewayRef, UserId};

/// One gateway.
pub(super) struct Gateway {
    pub own: GatewayRef,
    pub pipeline: Arc<Pipeline>,
    pub ports: Arc<Ports>,
    /// It hears what others send it.
    _inbox: Arc<Inbox>,
}

/// For how long a user was in a group: he may see what has a larger seq than
/// `since`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    pub since: i64,
    pub until: Option<i64>,
}

/// A send that its client saw acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acked {
    pub seq: i64,
    pub id: String,
}

/// Everything there is.
pub(super) struct World {
    pub plan: Plan,
    pub gateways: Vec<Gateway>,
    pub model: Arc<MemoryStore>,
    pub weather: Arc<Mutex<Weather>>,
    pub exchange: Arc<FaultyExchange>,
    pub trace: Trace,
    pub stays: Mutex<BTreeMap<(ConversationId, UserId), Vec<Stay>>>,
    /// By conversation, sender and clientMsgId.
    pub acked: Mutex<BTreeMap<(ConversationId, UserId, String), Acked>>,
    /// Nothing goes wrong any more, and clients only finish.
    pub settling: AtomicBool,
    pub stop: CancellationToken,
    conns: AtomicU64,
}

pub(super) fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

pub(super) fn groups() -> [ConversationId; 2] {
    ["g:a", "g:b"].map(|name| ConversationId::parse(name).unwrap())
}

impl World {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        let (model, weather) = (Arc::new(MemoryStore::new()), Arc::new(Mutex::new(plan.store)));
        let exchange = Arc::new(FaultyExchange::default());
        exchange.set(plan.bus);
        let table = Arc::new(MemoryTable::new(ROUTE_TTL));
        let stop = CancellationToken::new();
        let gateway = |number: usize| {
            let id = GatewayId::new(&format!("gw-{number}")).unwrap();
            let own = GatewayRef { id, epoch: Epoch(1) };
            let hub = Arc::new(Hub::new(plan.limits));
            let inbox = Inbox::new(Arc::clone(&hub));
            let at = Destination { gateway: own.id.clone(), epoch: own.epoch };
            let heard = Arc::clone(&inbox);
            let receiver: Receiver = Arc::new(move |source, item| heard.receive(source, item));
            let store = FlakyStore::shared(Arc::clone(&model), Arc::clone(&weather));
            let backends = Backends {
                presence: Presence::alone(own.clone(), Rules::default()),
                routes: Routes::Memory(MemoryRoutes::new(Arc::clone(&table), own.clone())),
                bus: Bus::Faulty(FaultyBus::join(Arc::clone(&exchange), at, receiver)),
                store: Store::Flaky(store),
            };
            let send_wait = std::time::Duration::from_secs(2);
            let tuning = Tuning { send_wait, groups: plan.groups, ..Tuning::for_tests() };
            let node = u16::try_from(number).unwrap();
            let ports = Arc::new(Ports::new(own.clone(), hub, backends, node, tuning));
            let pipeline = Pipeline::start(Arc::clone(&ports), &stop);
            inbox.open(&ports, &stop);
            Gateway { own, pipeline, ports, _inbox: inbox }
        };
        let gateways = (0..plan.gateways).map(gateway).collect();
        let world = Arc::new(Self {
            plan,
            gateways,
            model,
            weather,
            exchange,
            trace: Trace::default(),
            stays: Mutex::default(),
            acked: Mutex::default(),
            settling: AtomicBool::new(false),
            stop,
            conns: AtomicU64::new(1),
        });
        world.create_groups();
        world
    }

    /// Everybody is in the first group, and every other one in the second.
    pub(super) fn create_groups(&self) {
        let mut stays = self.stays.lock();
        for (group, step) in groups().iter().zip([1, 2]) {
            let members: Vec<_> =
                (1..=self.plan.users).step_by(step).map(|id| (user(id), Role::default())).collect();
            for (user, _) in &members {
                stays.insert((group.clone(), *user), vec![Stay { since: 0, until: None }]);
            }
            self.model.create(group, &members, History::SinceJoining);
        }
    }

    /// Every conversation there may be.
    pub(super) fn conversations(&self) -> Vec<ConversationId> {
        let pairs = (1..=self.plan.users).flat_map(|a| (a + 1..=self.plan.users).map(move |b| (a, b)));
        groups().into_iter().chain(pairs.map(|(a, b)| ConversationId::between(user(a), user(b)))).collect()
    }

    /// Those a user may write to now.
    pub(super) fn of(&self, user: UserId) -> Vec<ConversationId> {
        self.conversations().into_iter().filter(|id| self.since(id, user).is_some()).collect()
    }

    /// He sees what has a larger seq; `None` = he is not in it.
    pub(super) fn since(&self, conversation: &ConversationId, user: UserId) -> Option<i64> {
        if !conversation.is_group() {
            return conversation.peer_of(user).map(|_| 0);
        }
        let stays = self.stays.lock();
        let last = stays.get(&(conversation.clone(), user))?.last()?;
        last.until.is_none().then_some(last.since)
    }

    /// Whether he was ever entitled to see this message.
    pub(super) fn may_see(&self, conversation: &ConversationId, user: UserId, seq: i64) -> bool {
        if !conversation.is_group() {
            return conversation.peer_of(user).is_some();
        }
        let stays = self.stays.lock();
        let all = stays.get(&(conversation.clone(), user)).into_iter().flatten();
        let mut all = all.filter(|stay| stay.since < seq);
        all.any(|stay| stay.until.is_none_or(|until| seq <= until))
    }

    /// Whether what he sees began, at any time, with this message.
    pub(super) fn begins(&self, conversation: &ConversationId, user: UserId, seq: i64) -> bool {
        let stays = self.stays.lock();
        let mut all = stays.get(&(conversation.clone(), user)).into_iter().flatten();
        all.any(|stay| stay.since + 1 == seq)
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire)
    }

    pub(super) fn next_conn(&self) -> ConnId {
        ConnId(self.conns.fetch_add(1, Ordering::AcqRel))
    }

    /// Nothing goes wrong from now on.
    pub(super) fn calm_down(&self) {
        self.exchange.set(Faults { delay_ms: 5, ..Faults::default() });
        *self.weather.lock() = Weather { delay_ms: 2, ..Weather::default() };
        self.settling.store(true, Ordering::Release);
        self.trace.note(None, "-- all is well from here on".to_owned());
    }
}
