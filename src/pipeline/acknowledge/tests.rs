//! What positions cost the store and the bus, for groups small and large.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::*;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange};
use crate::hub::{Hub, OutboxLimits, PeerIdentity};
use crate::pipeline::{Backends, Tuning};
use crate::presence::{Presence, Rules};
use crate::route::{Binding, MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::{Append, FlakyStore, History, Role, Store};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef};
use crate::wire::decode;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{Delivery, Push};

const SOON: Duration = Duration::from_secs(20);

/// A gateway with a group, and another gateway that only listens.
struct World {
    pipeline: Arc<Pipeline>,
    group: ConversationId,
    elsewhere: Routes,
    heard: Arc<Mutex<Vec<Delivery>>>,
    stop: CancellationToken,
}

fn gateway(name: &str) -> GatewayRef {
    GatewayRef { id: GatewayId::new(name).unwrap(), epoch: Epoch(1) }
}

fn user(n: i64) -> UserId {
    UserId::new(n).unwrap()
}

impl World {
    async fn new(members: i64) -> Self {
        let (own, other) = (gateway("gw"), gateway("gw-b"));
        let (table, exchange) = (Arc::new(MemoryTable::new(ROUTE_TTL)), Arc::new(MemoryExchange::default()));
        let heard: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let at = |of: &GatewayRef| Destination { gateway: of.id.clone(), epoch: of.epoch };
        let ear = Arc::clone(&heard);
        let receiver: crate::bus::Receiver = Arc::new(move |_, item| match item.item {
            Some(Item::Delivery(delivery)) => ear.lock().push(delivery),
            other => panic!("{other:?}"),
        });
        let _ = MemoryBus::join(Arc::clone(&exchange), at(&other), receiver);
        let bus = Bus::Memory(MemoryBus::join(exchange, at(&own), Arc::new(|_, _| {})));
        let store = Store::Flaky(FlakyStore::new([]));
        let group = ConversationId::parse("g:team").unwrap();
        let roles: Vec<_> = (1..=members).map(|n| (user(n), Role::Member)).collect();
        store.create(&group, &roles, History::Full).await.unwrap();
        let message = Append {
            conversation: group.clone(),
            from: user(1),
            client_msg_id: "m".to_owned(),
            server_msg_id: "1".to_owned(),
            content_hash: 1,
            server_time: unix_ms(),
            push: Push::default(),
        };
        store.append(&[&message]).await;
        for gateway in [&own, &other] {
            store.join(gateway, &[(group.clone(), user(1))]).await.unwrap();
        }
        let routes = Routes::Memory(MemoryRoutes::new(Arc::clone(&table), own.clone()));
        let hub = Arc::new(Hub::new(OutboxLimits { bytes: 1 << 20, frames: 10_000 }));
        let presence = Presence::alone(own.clone(), Rules::default());
        let ports = Ports::new(own, hub, Backends { routes, presence, bus, store }, 0, Tuning::for_tests());
        let stop = CancellationToken::new();
        let pipeline = Pipeline::start(Arc::new(ports), &stop);
        let elsewhere = Routes::Memory(MemoryRoutes::new(table, other));
        Self { pipeline, group, elsewhere, heard, stop }
    }

    fn peer(n: i64, device: &str) -> Arc<Peer> {
        let identity = PeerIdentity {
            conn: ConnId(u64::try_from(n).unwrap()),
            user: user(n),
            device: DeviceId::new(device).unwrap(),
            expires_at: PeerIdentity::NEVER,
        };
        Arc::new(Peer::new(identity, 1, OutboxLimits { bytes: 1 << 20, frames: 100 }))
    }

    fn report(&self, n: i64, delivered: i64, read: i64) {
        let progress = Progress { conversation: self.group.clone(), user: user(n), delivered, read };
        self.pipeline.acknowledge(Report { progress, from: Self::peer(n, "phone") });
    }

    fn advanced(&self) -> usize {
        match &self.pipeline.ports().store {
            Store::Flaky(store) => store.advanced(),
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {} written", self.advanced());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Users named in what the other gateway heard.
    fn told(&self) -> BTreeSet<i64> {
        let heard = self.heard.lock();
        let envelopes = heard.iter().flat_map(|item| std::iter::once(&item.envelope).chain(&item.envelopes));
        let by = |bytes: &bytes::Bytes| match decode(bytes).unwrap().payload.unwrap() {
            Payload::Ack(ack) => ack.by_user_id,
            Payload::Read(receipt) => receipt.by_user_id,
            other => panic!("{other:?}"),
        };
        envelopes.map(by).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn what_a_large_group_received_costs_one_write_to_learn_its_size() {
    let world = World::new(15_000).await;
    for n in 2..=15_000 {
        world.report(n, 1, 0);
    }
    // Reports are worked off in order: behind this one all others are done.
    world.report(1, 0, 1);
    world.until("what was read is written", |world| world.advanced() >= 2).await;
    for n in 2..=15_000 {
        world.report(n, 1, 0);
    }
    world.report(2, 0, 1);
    world.until("what was read is written", |world| world.advanced() >= 3).await;
    assert_eq!(world.advanced(), 3);
    assert!(world.heard.lock().is_empty(), "others are told");
}

#[tokio::test]
async fn readers_of_a_large_group_tell_their_own_other_devices_only() {
    let world = World::new(15_000).await;
    let tablets: Vec<Binding> = [7, 8, 9].map(|n| binding(n, "tablet")).into();
    world.elsewhere.bind(&tablets, false).await.unwrap();
    for n in 1..=1_000 {
        world.report(n, 1, 1);
    }
    world.until("all is written", |world| world.advanced() >= 1_000 && world.told().len() >= 3).await;
    assert_eq!(world.advanced(), 1_000);
    assert_eq!(world.told(), BTreeSet::from([7, 8, 9]));
    assert_eq!(world.heard.lock().len(), 3);
}

fn binding(n: i64, device: &str) -> Binding {
    let id = World::peer(n, device);
    Binding { user: user(n), device: id.identity.device.clone(), conn: id.identity.conn, bound: 0, age: 1 }
}

#[tokio::test]
async fn a_small_group_hears_of_all_its_members_in_a_message_a_second() {
    let world = World::new(200).await;
    let start = Instant::now();
    for n in 2..=200 {
        world.report(n, 1, 1);
    }
    world.until("all are told", |world| world.told().len() == 199).await;
    assert_eq!(world.advanced(), 199);
    let heard = world.heard.lock();
    let most = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!(heard.len() <= most, "{} bus messages in {:?}", heard.len(), start.elapsed());
    for item in heard.iter() {
        assert_eq!((item.conversation_id.as_str(), item.mver), ("g:team", 1));
        assert!(item.user_ids.is_empty());
    }
}
