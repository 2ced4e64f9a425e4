//! The gateway's interest in groups: which of them it is told of.
//!
//! It is registered before tops are read and taken back some time after the
//! last member here has gone, so that nothing is missed in between and nobody
//! publishes to where nobody is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Ports;
use super::insistence::insistently;
use super::members::JOIN_BATCH;
use crate::store::StoreError;
use crate::task::spawn_core;
use crate::types::{ConversationId, UserId, monotonic_ms};

/// Most groups of one user that are followed.
pub(super) const MAX_INDEX: usize = 10_000;
/// How often empty rooms are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Users whose groups are read at a time after an outage.
const REJOIN_BATCH: usize = 200;
/// Pause between two such batches.
const REJOIN_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("rooms", stop, sweep(Arc::clone(ports)));
}

async fn sweep(ports: Arc<Ports>) {
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Nobody registers interest while it is taken back.
        let _alone = ports.interest.write().await;
        let closed = ports.hub.rooms.sweep(monotonic_ms());
        if !closed.is_empty() && ports.store.leave(&ports.own, &closed).await.is_err() {
            // Whoever publishes here is told by silence; it costs a publish.
            tracing::debug!(groups = closed.len(), "interest not taken back");
        }
    }
}

impl Ports {
    /// Registers interest anew for everybody here, at a paced rate: after an
    /// outage nothing is known of what the store holds, nor of who has joined
    /// or left meanwhile.
    pub(crate) async fn register_interest(&self) {
        for chunk in self.hub.everybody().chunks(REJOIN_BATCH) {
            if insistently(|| self.rejoin(chunk)).await.is_none() {
                // One of them spoils it for all.
                for user in chunk {
                    insistently(|| self.rejoin(std::slice::from_ref(user))).await;
                }
            }
            sleep(REJOIN_PAUSE).await;
        }
        for room in self.hub.rooms.all() {
            // Its count of changes may be of another store.
            room.doubt();
            insistently(|| self.reload(&room.conversation)).await;
        }
    }

    /// Registers interest in all groups of these users.
    pub(super) async fn rejoin(&self, users: &[UserId]) -> Result<(), StoreError> {
        let indexes = self.store.index(users, 0, 0, MAX_INDEX).await?;
        let of = |(user, index): (&UserId, Vec<ConversationId>)| {
            let user = *user;
            index.into_iter().filter(ConversationId::is_group).map(move |group| (group, user))
        };
        let wanted: Vec<_> = users.iter().zip(indexes).flat_map(of).collect();
        let mut groups = BTreeSet::new();
        for wanted in wanted.chunks(JOIN_BATCH) {
            let joined = self.take_in(wanted).await?;
            let taken_in = wanted.iter().zip(joined).filter(|(_, joined)| joined.is_some());
            groups.extend(taken_in.map(|((group, _), _)| group.clone()));
        }
        self.catch_up_with(&groups.into_iter().collect::<Vec<_>>()).await;
        Ok(())
    }

    /// The groups with a member online here.
    pub(crate) fn groups_here(&self) -> Vec<ConversationId> {
        self.hub
            .rooms
            .all()
            .iter()
            .filter(|room| room.online() > 0)
            .map(|room| room.conversation.clone())
            .collect()
    }
}
