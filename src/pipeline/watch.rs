//! The verb *watch*: a connection is told who of some users is online, and of
//! every change from then on.
//!
//! The order that misses nothing: the states of the users are kept, the
//! gateway is told of changes, then the states are read, then the connection
//! watches and is told what is kept.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::interest::MAX_INDEX;
use super::pull::{answer, retry_later};
use super::{Pipeline, Ports, watching};
use crate::config::Visibility;
use crate::hub::Peer;
use crate::presence::{PresenceError, Step, TooMany};
use crate::store::StoreError;
use crate::telemetry::metrics;
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Error, ErrorCode, PresenceReq};
use crate::wire::{Payload, error};

/// Groups whose members are looked at in one go.
const GROUPS: usize = 32;

impl Pipeline {
    /// Begins or ends watching. Whom a connection may not watch it is told.
    pub(crate) fn watch(&self, peer: &Arc<Peer>, trace_id: String, request: PresenceReq) {
        let ports = &self.ports;
        if !ports.presence_config.enabled {
            let off = error(ErrorCode::Unsupported, "presence is off: presence.enabled = false");
            return refuse(peer, &trace_id, off);
        }
        let conn = peer.identity.conn;
        let users = match addressees(&request) {
            Ok(users) => users,
            Err(error) => return refuse(peer, &trace_id, *error),
        };
        let expected = {
            let watching = &mut ports.pulse.watching.lock();
            if !request.watch {
                return watching.watches.end(conn, &users);
            }
            watching.watches.expect(conn, &users, ports.presence_config.max_watched)
        };
        if let Err(TooMany { most }) = expected {
            let text = format!("presence.userIds: a connection may watch at most {most} users");
            return refuse(peer, &trace_id, error(ErrorCode::TooLarge, text));
        }
        peer.pull_started();
        let (peer, ports) = (Arc::clone(peer), Arc::clone(ports));
        let permit = Arc::clone(&self.pulls).try_acquire_owned();
        tokio::spawn(async move {
            let begun = match permit {
                Ok(_permit) => ports.begin_watching(&peer, &trace_id, &users).await,
                Err(_) => Err(retry_later("too many reads at once")),
            };
            ports.pulse.watching.lock().watches.unexpect(peer.identity.conn, &users);
            if let Err(error) = begun {
                refuse(&peer, &trace_id, error);
            }
            peer.pull_answered();
        });
    }
}

/// Whom a request names, each once.
fn addressees(request: &PresenceReq) -> Result<Vec<UserId>, Box<Error>> {
    let invalid = |text: String| Box::new(error(ErrorCode::Invalid, text));
    if request.watch && request.user_ids.is_empty() {
        return Err(invalid("presence.userIds names nobody".to_owned()));
    }
    let read = |(place, id): (usize, &i64)| {
        UserId::new(*id).map_err(|error| invalid(format!("presence.userIds[{place}]: {error}")))
    };
    let mut users = request.user_ids.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

pub(super) fn refuse(peer: &Peer, trace_id: &str, error: Error) {
    metrics().presence.refused.increment(1);
    answer(peer, trace_id, Payload::Error(error));
}

/// The first of these users, for a message.
pub(super) fn named(users: &[UserId]) -> String {
    let first: Vec<String> = users.iter().take(10).map(ToString::to_string).collect();
    let more = if users.len() > first.len() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

impl From<PresenceError> for Error {
    fn from(_: PresenceError) -> Self {
        retry_later("it is not known who is online")
    }
}

impl Ports {
    async fn begin_watching(&self, peer: &Arc<Peer>, trace_id: &str, users: &[UserId]) -> Result<(), Error> {
        let refused = self.hidden_from(peer.identity.user, users).await?;
        let users: Vec<UserId> = users.iter().filter(|user| !refused.contains(user)).copied().collect();
        let look = self.step(Step { watching: true, look: &users, ..Step::default() }).await?;
        self.absorb(&look).await;
        let online: Vec<_> = look.found.iter().filter(|found| found.online).map(|found| found.user).collect();
        let mut devices = self.devices_of(&online).await;
        {
            let watching = &mut self.pulse.watching.lock();
            // Whoever leaves after this look is forgotten after it.
            if !self.hub.holds(peer) {
                return Ok(());
            }
            watching.admit(peer);
            for (user, mut state) in watching.watches.begin(peer.identity.conn, &users) {
                if let Some(devices) = devices.remove(&user).filter(|_| state.online) {
                    state.devices = devices;
                }
                peer.answer(watching::answer(trace_id, user, &state));
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let user_ids: Vec<i64> = refused.iter().map(|user| user.get()).collect();
        let text = format!("presence.userIds: you may not watch {}", named(&refused));
        Err(Error { user_ids, ..error(ErrorCode::Forbidden, text) })
    }

    /// Those of these users that `viewer` may not watch.
    pub(super) async fn hidden_from(
        &self,
        viewer: UserId,
        users: &[UserId],
    ) -> Result<Vec<UserId>, StoreError> {
        match self.presence_config.visibility {
            Visibility::All => return Ok(Vec::new()),
            Visibility::None => return Ok(users.to_vec()),
            Visibility::Conversation => {}
        }
        let mut hidden: Vec<UserId> = users.iter().filter(|user| **user != viewer).copied().collect();
        let pairs: Vec<_> = hidden.iter().map(|user| ConversationId::between(viewer, *user)).collect();
        let mut mutual = self.store.mutual(&pairs).await?.into_iter();
        hidden.retain(|_| !mutual.next().unwrap_or(false));
        if hidden.is_empty() {
            return Ok(hidden);
        }
        let index = self.store.index(&[viewer], 0, 0, MAX_INDEX).await?.pop().unwrap_or_default();
        let groups: Vec<ConversationId> = index.into_iter().filter(ConversationId::is_group).collect();
        for groups in groups.chunks(GROUPS) {
            // The viewer is looked for too: his index may not be up to date.
            let wanted: Vec<UserId> = std::iter::once(viewer).chain(hidden.iter().copied()).collect();
            let rosters = try_join_all(groups.iter().map(|group| self.store.roster(group, &wanted))).await?;
            for roster in rosters.into_iter().flatten() {
                let mut members = wanted.iter().zip(roster.members);
                if members.next().is_none_or(|(_, own)| own.is_none()) {
                    continue;
                }
                let fellows: Vec<UserId> =
                    members.filter_map(|(user, member)| member.map(|_| *user)).collect();
                hidden.retain(|user| !fellows.contains(user));
            }
            if hidden.is_empty() {
                break;
            }
        }
        Ok(hidden)
    }
}
