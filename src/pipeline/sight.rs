//! Whether who watches still may: judged again when somebody it concerns has
//! left a conversation, as far as that is told here, and from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Ports, watch};
use crate::config::Visibility;
use crate::task::spawn_core;
use crate::types::{UserId, monotonic_ms};
use crate::wire::error;
use crate::wire::pb::{Error, ErrorCode};

const EVERY: Duration = Duration::from_secs(1);
/// Most watchers that are judged in one go: the store has other things to do.
const MOST: usize = 32;

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    // The others do not depend on who has a conversation with whom.
    if ports.presence_config.visibility == Visibility::Conversation {
        spawn_core("sight", stop, run(Arc::clone(ports)));
    }
}

async fn run(ports: Arc<Ports>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        ports.judge_again(monotonic_ms()).await;
    }
}

impl Ports {
    /// Judges those again whose time has come, some of them.
    pub(super) async fn judge_again(&self, now_ms: u64) {
        for _ in 0..MOST {
            let Some(_turn) = self.pulse.turn().await else { return };
            let Some((peer, users)) = self.pulse.watching.lock().next_judged(now_ms) else { return };
            let conn = peer.identity.conn;
            let Ok(hidden) = self.hidden_from(peer.identity.user, &users).await else {
                return self.pulse.watching.lock().doubt(conn);
            };
            if !self.pulse.watching.lock().judge(conn, &hidden) {
                continue;
            }
            tracing::debug!(%conn, hidden = hidden.len(), "watches no more whom it may not");
            let text = format!("presence: you may not watch {} any more", watch::named(&hidden));
            let user_ids = hidden.iter().map(|user| user.get()).collect();
            watch::refuse(&peer, "", Error { user_ids, ..error(ErrorCode::Forbidden, text) });
        }
    }

    /// These users may have lost a conversation: those who watch them, and
    /// they themselves, are judged soon.
    pub(super) fn doubt_watches(&self, users: &[UserId]) {
        let watching = &mut self.pulse.watching.lock();
        if watching.watches.is_empty() {
            return;
        }
        for user in users {
            self.hub.peers(*user).iter().for_each(|peer| watching.doubt(peer.identity.conn));
            watching.doubt_watchers(*user);
        }
    }
}

#[cfg(test)]
mod tests;
