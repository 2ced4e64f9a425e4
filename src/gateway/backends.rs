//! What a gateway stands on: its own disk, or a Redis it shares with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::GatewayError;
use super::assemble::rules;
use super::build::Gateway;
use super::membership::Membership;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange, Receiver, RedisBus};
use crate::message::MAX_NODE;
use crate::pipeline::{Backends, Ports};
use crate::presence::{Presence, RedisPresence};
use crate::redis::{Client, Lease, LeaseRecord, NodeLease};
use crate::route::{MemoryRoutes, MemoryTable, ROUTE_TTL, RedisRoutes, Routes};
use crate::store::{EmbeddedStore, Left, RedisStore, Store};
use crate::task::spawn_core;
use crate::telemetry::metrics;

impl Gateway {
    pub(super) async fn alone(&self, receiver: Receiver) -> Result<(Ports, EmbeddedStore), GatewayError> {
        let own = self.data.own.clone();
        let destination = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let (data_dir, restored) = (self.config.data_dir.clone(), self.config.restored);
        // Of who takes over, the process before this one has just closed it.
        let left = if self.node.is_some() { Left::Whole } else { Left::Anyhow };
        let opened =
            tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, left, restored)).await;
        let failed = |why| GatewayError::DataDir { dir: self.config.data_dir.display().to_string(), why };
        let (store, ended) = opened
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(format!("the store cannot be opened: {error}")))?;
        spawn_core("store", &self.stop, async move {
            let _ = ended.await;
        });
        let presence = Presence::alone(own.clone(), rules(&self.config));
        let routes = Routes::Memory(MemoryRoutes::new(Arc::new(MemoryTable::new(ROUTE_TTL)), own));
        let bus = Bus::Memory(MemoryBus::join(Arc::new(MemoryExchange::default()), destination, receiver));
        let backends = Backends { routes, presence, bus, store: Store::Embedded(store.clone()) };
        Ok((self.ports(backends, 0), store))
    }

    pub(super) async fn join(
        &self,
        client: &Client,
        receiver: Receiver,
    ) -> Result<(Ports, Joined, u16), GatewayError> {
        // A first ack then says what later ones say, and a Redis that cannot
        // be used ends the start.
        client.settled().await?;
        let own = self.data.own.clone();
        let lease = Lease::new(client.clone(), self.keys.clone(), own.id.clone(), own.epoch);
        let record = LeaseRecord {
            epoch: own.epoch.0,
            listen: self.admin.listen.to_string(),
            admin: self.admin.admin.to_string(),
            pid: std::process::id(),
            connections: 0,
        };
        let node_lease = NodeLease::new(client.clone(), self.keys.clone(), &own.id, own.epoch);
        // Who takes over has both already: they are of the epoch.
        if self.node.is_none() {
            lease.acquire(&record).await?;
        }
        let node = loop {
            if let Some(node) = self.node {
                break node;
            }
            match node_lease.acquire(MAX_NODE).await {
                Ok(Some(node)) => break node,
                Ok(None) => {
                    return Err(GatewayError::Setup("all 1024 node numbers of message ids are taken".into()));
                }
                Err(error) => {
                    warn!(%error, "no node number yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let destination = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let bus = RedisBus::start(
            client.clone(),
            self.keys.clone(),
            destination,
            receiver,
            self.node.is_some(),
            &self.stop,
        );
        let mut subscribed = bus.subscribed();
        // The bus keeps trying; its end is the process's.
        let _ = subscribed.wait_for(|&generation| generation > 0).await;
        metrics().redis_up.set(1.0);
        let store = Store::Redis(RedisStore::new(client.clone(), self.keys.clone()));
        let presence = RedisPresence::new(client.clone(), &self.keys, own.clone(), rules(&self.config));
        let presence = Presence::Redis(presence);
        let routes = Routes::Redis(RedisRoutes::new(client.clone(), self.keys.clone(), own, ROUTE_TTL));
        let ports = self.ports(Backends { routes, presence, bus: Bus::Redis(bus), store }, node);
        self.admin.leased.store(true, Ordering::Relaxed);
        let leased = Arc::clone(&self.admin.leased);
        let joined = Joined { client: client.clone(), lease, node: node_lease, record, subscribed, leased };
        Ok((ports, joined, node))
    }
}

/// Membership, before there are ports to keep alive.
pub(super) struct Joined {
    client: Client,
    lease: Lease,
    node: NodeLease,
    record: LeaseRecord,
    subscribed: watch::Receiver<u64>,
    leased: Arc<AtomicBool>,
}

impl Joined {
    pub(super) fn into_membership(self, ports: Arc<Ports>) -> Membership {
        let Self { client, lease, node, record, subscribed, leased } = self;
        Membership { ports, client, lease, node, record, subscribed, leased, owed: None }
    }
}
