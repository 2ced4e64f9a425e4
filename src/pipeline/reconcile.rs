//! The verb *reconcile*: after a disturbance of the bus, every conversation
//! that may have missed something is held against its log.
//!
//! Once per conversation, not per connection, and paced: the store has others
//! to serve. One round runs at a time; disturbances that come meanwhile are
//! the next one. While the store is away a round waits for it.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Ports;
use super::insistence::insistently;
use crate::bus::Disturbance;
use crate::task::spawn_core;
use crate::telemetry::metrics;
use crate::types::{ConversationId, UserId};

/// An index tells activity to the minute, and clocks differ.
const MARGIN_MS: i64 = 120_000;
/// Users whose indexes are read in one round trip, and how many per second.
const USERS: usize = 250;
const USERS_RATE: u32 = 20_000;
/// Entries of one index read at a time.
const INDEX_PAGE: usize = 500;
/// Conversations whose tops are read in one round trip, and how many are
/// looked at per second.
const TOPS: usize = 200;
const TOPS_RATE: u32 = 2_000;
/// Shortest time between two rounds.
const REST: Duration = Duration::from_millis(250);

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("reconcile", stop, run(Arc::clone(ports)));
}

async fn run(ports: Arc<Ports>) {
    let disturbances = ports.bus.disturbances().clone();
    loop {
        let Disturbance { since, causes } = disturbances.next().await;
        ports.pulse.doubt();
        let mut round = Round::new(&ports, since);
        round.go().await;
        if !round.looked_at.is_empty() {
            info!(?causes, since, conversations = round.looked_at.len(), "reconciled");
        }
        sleep(REST).await;
    }
}

/// One look at everything that was active since.
struct Round<'a> {
    ports: &'a Ports,
    since: i64,
    looked_at: HashSet<ConversationId>,
}

impl<'a> Round<'a> {
    fn new(ports: &'a Ports, since: i64) -> Self {
        Self { ports, since: since.saturating_sub(MARGIN_MS), looked_at: HashSet::new() }
    }

    /// A user's index says nothing of messages in groups: those with a member
    /// here are looked at whatever it says.
    async fn go(&mut self) {
        let groups = self.ports.groups_here();
        for groups in groups.chunks(TOPS) {
            let paced = pace(groups.len(), TOPS_RATE);
            // Somebody was removed, and nobody told.
            let ports = self.ports;
            let check = |group| insistently(move || ports.check_members(group));
            join_all(groups.iter().map(check)).await;
            sleep_until(paced).await;
        }
        self.look_at(groups).await;
        for users in self.ports.hub.everybody().chunks(USERS) {
            let paced = pace(users.len(), USERS_RATE);
            self.users(users.to_vec()).await;
            sleep_until(paced).await;
        }
    }

    /// Those with a long index are asked again for what follows.
    async fn users(&mut self, mut users: Vec<UserId>) {
        let mut offset = 0;
        while !users.is_empty() {
            let read = || self.ports.store.index(&users, self.since, offset, INDEX_PAGE);
            let Some(indexes) = insistently(read).await else { return };
            for (user, index) in users.iter().zip(&indexes) {
                // He joined, and nobody told.
                let unknown =
                    |group: &&ConversationId| group.is_group() && !self.ports.is_in_room(*user, group);
                for group in index.iter().filter(unknown) {
                    self.ports.look_up_members(group, &[*user]).await;
                }
            }
            let unfinished = users.iter().zip(&indexes).filter(|(_, index)| index.len() >= INDEX_PAGE);
            users = unfinished.map(|(user, _)| *user).collect();
            offset += INDEX_PAGE;
            self.look_at(indexes.into_iter().flatten().collect()).await;
        }
    }

    async fn look_at(&mut self, mut conversations: Vec<ConversationId>) {
        conversations.retain(|conversation| self.looked_at.insert(conversation.clone()));
        for conversations in conversations.chunks(TOPS) {
            let paced = pace(conversations.len(), TOPS_RATE);
            metrics().reconciled.increment(u64::try_from(conversations.len()).unwrap_or(u64::MAX));
            let Some(tops) = insistently(|| self.ports.store.tops(conversations)).await else { continue };
            for (conversation, top) in conversations.iter().zip(tops) {
                // Nothing was sent there yet.
                let Some(top) = top else { continue };
                self.ports.catch_up(conversation, &top);
            }
            sleep_until(paced).await;
        }
    }
}

/// When so many at this rate are due to be done.
fn pace(count: usize, per_second: u32) -> Instant {
    let each = Duration::from_secs(1) / per_second;
    Instant::now() + each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
