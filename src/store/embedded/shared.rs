//! What the thread that writes and everybody who reads have in common.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::engine::Engine;
use super::heads::Heads;
use super::turn::Turn;
use crate::types::{ConversationId, Epoch, GatewayId, GatewayRef};

/// See above.
#[derive(Debug)]
pub(super) struct Shared {
    /// Of the files.
    pub(super) dir: PathBuf,
    /// `None` while they are closed.
    engine: RwLock<Option<Arc<Engine>>>,
    pub(super) heads: Heads,
    pub(super) turn: Turn,
    interest: Mutex<HashMap<ConversationId, BTreeMap<GatewayId, Epoch>>>,
}

impl Shared {
    pub(super) fn new(dir: PathBuf, engine: Engine) -> Self {
        Self {
            dir,
            engine: RwLock::new(Some(Arc::new(engine))),
            heads: Heads::default(),
            turn: Turn::default(),
            interest: Mutex::default(),
        }
    }

    /// The files, if they are open.
    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.read().clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.engine.read().is_some()
    }

    /// Closes the files, once whoever reads is done; after `deadline` they are
    /// closed by the last reader. Whether they are closed.
    pub(super) fn take_engine(&self, deadline: Duration) -> bool {
        let Some(mut engine) = self.engine.write().take() else { return true };
        self.heads.clear();
        let started = Instant::now();
        loop {
            match Arc::try_unwrap(engine) {
                Ok(engine) => {
                    drop(engine);
                    return true;
                }
                Err(_) if started.elapsed() > deadline => return false,
                Err(shared) => engine = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Opened again.
    pub(super) fn put_engine(&self, engine: Engine) {
        self.heads.clear();
        *self.engine.write() = Some(Arc::new(engine));
    }

    /// Gateways with a member of the group online.
    pub(super) fn interested(&self, group: &ConversationId) -> Vec<GatewayRef> {
        let interest = self.interest.lock();
        let gateways = interest.get(group).into_iter().flatten();
        gateways.map(|(id, epoch)| GatewayRef { id: id.clone(), epoch: *epoch }).collect()
    }

    pub(super) fn register(&self, gateway: &GatewayRef, group: &ConversationId) {
        self.interest.lock().entry(group.clone()).or_default().insert(gateway.id.clone(), gateway.epoch);
    }

    /// Takes the interest of this gateway, in this epoch, back.
    pub(super) fn unregister(&self, gateway: &GatewayRef, group: &ConversationId) {
        let mut interest = self.interest.lock();
        let Some(gateways) = interest.get_mut(group) else { return };
        if gateways.get(&gateway.id) == Some(&gateway.epoch) {
            gateways.remove(&gateway.id);
        }
        if gateways.is_empty() {
            interest.remove(group);
        }
    }

    /// Takes all interest in a group that is gone.
    pub(super) fn forget(&self, group: &ConversationId) -> Vec<GatewayRef> {
        let gateways = self.interest.lock().remove(group).unwrap_or_default();
        gateways.into_iter().map(|(id, epoch)| GatewayRef { id, epoch }).collect()
    }
}
