//! The verb *change members*: groups made and ended, members added, changed,
//! removed and kept out; and telling those concerned.
//!
//! A change is done once the store says so. Telling is best effort behind it:
//! what gateways miss they find by the `mver` of the next message. A change
//! that was begun is carried through and told even if whoever asked has gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::{sleep, timeout};

use super::Ports;
use crate::hub::Frame;
use crate::store::{Change, Changed, Created, History, MemberChange, Role, StoreError};
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, GatewayRef, UserId};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{ConversationChange, ConversationEvent, Envelope, Membership};
use crate::wire::{Payload, encode, frame_encoded, reply};

/// Users whose routes are looked up at a time, and most of one bus item.
const CHUNK: usize = 1_000;
/// How long an answer waits for the telling, which goes on behind it.
const ANSWER_AFTER: Duration = Duration::from_secs(2);
/// Longest a telling may take.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// Pause after a look-up of routes without an answer.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(200);

/// A change, and who is to hear of it.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// Where.
    pub group: ConversationId,
    /// Counts the changes of its members, with this one.
    pub mver: u64,
    /// Gateways with a member online.
    pub audience: Vec<GatewayRef>,
    /// Whether all members are told, not only those it is about.
    pub to_members: bool,
    /// What happened, and to whom; nobody = to the group.
    pub events: Vec<(ConversationEvent, Vec<UserId>)>,
}

/// The event of a change as `user` gets it: one that is about many is to each
/// of them about himself.
pub(super) fn event_frame(membership: &Membership, user: UserId) -> Frame {
    let bytes = match Envelope::decode(membership.envelope.clone()) {
        Ok(Envelope { header, payload: Some(Payload::ConversationEvent(event)) })
            if event.user_id == 0 && !membership.user_ids.is_empty() =>
        {
            let event = ConversationEvent { user_id: user.get(), ..event };
            encode(&Envelope { header, payload: Some(Payload::ConversationEvent(event)) })
        }
        _ => frame_encoded(&membership.envelope),
    };
    Frame::control(bytes, FrameKind::Other)
}

/// What a user is told who turns out to be in a group no more, because he was
/// removed or the group deleted.
pub(super) fn found_out_frame(group: &ConversationId, change: ConversationChange, user: UserId) -> Frame {
    let user_id = if change == ConversationChange::Deleted { 0 } else { user.get() };
    let event = ConversationEvent { user_id, ..event(group, change) };
    Frame::control(encode(&reply("", Payload::ConversationEvent(event))), FrameKind::Other)
}

impl Ports {
    /// Makes a group. Each member is told of his own joining only.
    pub(crate) async fn create_group(
        self: &Arc<Self>,
        group: ConversationId,
        members: Vec<(UserId, Role)>,
        history: History,
    ) -> Result<Created, StoreError> {
        let ports = Arc::clone(self);
        carried_through(async move {
            let created = ports.store.create(&group, &members, history).await?;
            if let Created::New(description) = &created {
                let joined = |role: Role| {
                    let of_role = members.iter().filter(|(_, is)| *is == role).map(|(user, _)| *user);
                    let event = ConversationEvent {
                        role: role.as_str().to_owned(),
                        ..event(&group, ConversationChange::Joined)
                    };
                    (event, of_role.collect::<Vec<_>>())
                };
                let events = [Role::Owner, Role::Admin, Role::Member].map(joined);
                let events = events.into_iter().filter(|(_, users)| !users.is_empty()).collect();
                let mver = description.mver;
                ports
                    .tell(Announcement { group, mver, audience: Vec::new(), to_members: false, events })
                    .await;
            }
            Ok(created)
        })
        .await
    }

    /// Ends a group; returns whether there was one.
    pub(crate) async fn delete_group(self: &Arc<Self>, group: ConversationId) -> Result<bool, StoreError> {
        let ports = Arc::clone(self);
        carried_through(async move {
            let Some(audience) = ports.store.delete(&group).await? else { return Ok(false) };
            let events = vec![(event(&group, ConversationChange::Deleted), Vec::new())];
            let (mver, audience) = (audience.mver, audience.gateways);
            ports.tell(Announcement { group, mver, audience, to_members: true, events }).await;
            Ok(true)
        })
        .await
    }

    /// Adds or changes a member.
    pub(crate) async fn put_member(
        self: &Arc<Self>,
        group: ConversationId,
        user: UserId,
        change: MemberChange,
    ) -> Result<Changed, StoreError> {
        let ports = Arc::clone(self);
        carried_through(async move {
            let change = ports.store.put_member(&group, user, change).await?;
            Ok(ports.tell_change(group, user, change).await)
        })
        .await
    }

    /// Removes a member.
    pub(crate) async fn remove_member(
        self: &Arc<Self>,
        group: ConversationId,
        user: UserId,
    ) -> Result<Changed, StoreError> {
        let ports = Arc::clone(self);
        carried_through(async move {
            let change = ports.store.remove_member(&group, user).await?;
            Ok(ports.tell_change(group, user, change).await)
        })
        .await
    }

    /// Puts a user on a conversation's blacklist or takes him off it.
    pub(crate) async fn block(
        self: &Arc<Self>,
        conversation: ConversationId,
        user: UserId,
        blocked: bool,
    ) -> Result<Changed, StoreError> {
        let ports = Arc::clone(self);
        carried_through(async move {
            let change = ports.store.block(&conversation, user, blocked).await?;
            Ok(ports.tell_change(conversation, user, change).await)
        })
        .await
    }

    async fn tell_change(self: &Arc<Self>, group: ConversationId, user: UserId, change: Change) -> Changed {
        let Change { changed, audience } = change;
        let events: Vec<_> =
            events_of(&group, user, &changed).into_iter().map(|event| (event, vec![user])).collect();
        if !events.is_empty() {
            let to_members = audience.members <= self.groups.receipt_members;
            let (mver, audience) = (audience.mver, audience.gateways);
            self.tell(Announcement { group, mver, audience, to_members, events }).await;
        }
        changed
    }

    /// Announces, and waits for it only so long.
    async fn tell(self: &Arc<Self>, news: Announcement) {
        let ports = Arc::clone(self);
        let telling = tokio::spawn(async move {
            if timeout(TELL_WITHIN, ports.announce(&news)).await.is_err() {
                let users: usize = news.events.iter().map(|(_, users)| users.len()).sum();
                metrics().deliveries_lookup_failed.increment(u64::try_from(users).unwrap_or(u64::MAX));
                tracing::warn!(group = %news.group, "a change of members was not told to all in time");
            }
        });
        let _ = timeout(ANSWER_AFTER, telling).await;
    }

    /// One item to every gateway concerned: those with a member online, and
    /// those where somebody is whom it is about.
    async fn announce(&self, news: &Announcement) {
        for (event, users) in &news.events {
            let envelope = reply("", Payload::ConversationEvent(event.clone())).encode_to_vec().into();
            if users.is_empty() {
                self.announce_to(news, &envelope, &[]).await;
            }
            for users in users.chunks(CHUNK) {
                self.announce_to(news, &envelope, users).await;
            }
        }
    }

    async fn announce_to(&self, news: &Announcement, envelope: &Bytes, users: &[UserId]) {
        let membership = |user_ids| Membership {
            conversation_id: news.group.to_string(),
            mver: news.mver,
            user_ids,
            envelope: envelope.clone(),
            to_members: news.to_members,
        };
        let all: Vec<i64> = users.iter().map(|user| user.get()).collect();
        self.members_changed(&membership(all.clone())).await;
        let mut items: HashMap<GatewayRef, Vec<i64>> = HashMap::new();
        for (user, gateway) in self.places(users).await {
            items.entry(gateway).or_default().push(user.get());
        }
        items.extend(news.audience.iter().map(|gateway| (gateway.clone(), all.clone())));
        items.remove(&self.own);
        for (gateway, user_ids) in items {
            self.publish(&gateway, Item::Membership(membership(user_ids)));
        }
    }

    /// Each user with each gateway where he is.
    async fn places(&self, users: &[UserId]) -> Vec<(UserId, GatewayRef)> {
        if users.is_empty() {
            return Vec::new();
        }
        // Whoever is in a new group hears of it in no other way.
        let routes = loop {
            match self.routes.query(users).await {
                Ok(routes) => break routes,
                Err(_) => sleep(LOOK_UP_PAUSE).await,
            }
        };
        let mut places = Vec::new();
        for (user, route) in users.iter().zip(&routes) {
            places.extend(route.gateways().into_iter().map(|gateway| (*user, gateway.clone())));
        }
        places
    }
}

/// In a task of its own, which whoever asked cannot take along when he goes.
async fn carried_through<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let broken = |error: tokio::task::JoinError| Err(StoreError::Broken(error.to_string()));
    tokio::spawn(work).await.unwrap_or_else(broken)
}

fn event(group: &ConversationId, change: ConversationChange) -> ConversationEvent {
    ConversationEvent {
        conversation_id: group.to_string(),
        change: change.into(),
        ..ConversationEvent::default()
    }
}

/// What is told of a change; nothing where nothing changed.
fn events_of(group: &ConversationId, user: UserId, changed: &Changed) -> Vec<ConversationEvent> {
    let of = |change| ConversationEvent { user_id: user.get(), ..event(group, change) };
    match changed {
        Changed::Joined(member) => vec![ConversationEvent {
            role: member.role.as_str().to_owned(),
            since_seq: member.since_seq,
            mute_until: member.mute_until,
            ..of(ConversationChange::Joined)
        }],
        Changed::Updated { before, after } => {
            let changes = [
                (before.role != after.role, ConversationChange::Role),
                (before.mute_until != after.mute_until, ConversationChange::Muted),
            ];
            let told = changes.into_iter().filter(|(differs, _)| *differs);
            told.map(|(_, change)| ConversationEvent {
                role: after.role.as_str().to_owned(),
                since_seq: after.since_seq,
                mute_until: after.mute_until,
                ..of(change)
            })
            .collect()
        }
        Changed::Removed => vec![of(ConversationChange::Removed)],
        Changed::NotFound | Changed::Blocked | Changed::Same => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
