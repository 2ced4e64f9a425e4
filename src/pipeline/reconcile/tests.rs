//! Which conversations a round looks at.

use super::*;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange};
use crate::hub::{Hub, OutboxLimits, Peer, PeerIdentity};
use crate::pipeline::{Backends, Tuning};
use crate::route::{MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::{Append, MemoryStore, Store};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef, unix_ms};
use crate::wire::pb::Push;

fn user(n: i64) -> UserId {
    UserId::new(n).unwrap()
}

fn ports() -> Ports {
    let own = GatewayRef { id: GatewayId::new("gw").unwrap(), epoch: Epoch(1) };
    let at = Destination { gateway: own.id.clone(), epoch: own.epoch };
    let backends = Backends {
        routes: Routes::Memory(MemoryRoutes::new(Arc::new(MemoryTable::new(ROUTE_TTL)), own.clone())),
        bus: Bus::Memory(MemoryBus::join(Arc::new(MemoryExchange::default()), at, Arc::new(|_, _| {}))),
        store: Store::Memory(MemoryStore::new()),
    };
    let hub = Arc::new(Hub::new(OutboxLimits { bytes: 1 << 20, frames: 1_000 }));
    Ports::new(own, hub, backends, 0, Tuning::for_tests())
}

fn connect(ports: &Ports, n: i64, device: &str) {
    let identity = PeerIdentity {
        conn: ConnId(u64::try_from(n).unwrap()),
        user: user(n),
        device: DeviceId::new(device).unwrap(),
        expires_at: None,
    };
    ports.hub.register(&Arc::new(Peer::new(identity, 1, ports.hub.limits())));
}

async fn send(ports: &Ports, from: i64, to: i64) -> ConversationId {
    let conversation = ConversationId::between(user(from), user(to));
    let append = Append {
        conversation: conversation.clone(),
        from: user(from),
        client_msg_id: "m".to_owned(),
        server_msg_id: "1".to_owned(),
        content_hash: 1,
        server_time: unix_ms(),
        push: Push::default(),
    };
    ports.store.append(&[&append]).await;
    conversation
}

#[tokio::test]
async fn every_conversation_of_those_here_is_looked_at_once() {
    let ports = ports();
    for device in ["phone", "tablet"] {
        connect(&ports, 1, device);
    }
    connect(&ports, 2, "phone");
    let mut expected = HashSet::from([send(&ports, 1, 2).await, send(&ports, 3, 2).await]);
    // More than one page of an index.
    let many = i64::try_from(INDEX_PAGE).unwrap() + 10;
    for other in 100..100 + many {
        expected.insert(send(&ports, 1, other).await);
    }
    let _nobodys_here = send(&ports, 8, 9).await;
    let start = Instant::now();
    let mut round = Round::new(&ports, unix_ms());
    round.go().await;
    assert_eq!(round.looked_at, expected);
    let least = Duration::from_millis(200);
    assert!(start.elapsed() >= least, "{} in {:?}", expected.len(), start.elapsed());
    let mut later = Round::new(&ports, unix_ms() + MARGIN_MS + 1_000);
    later.go().await;
    assert!(later.looked_at.is_empty(), "nothing was active since");
}
