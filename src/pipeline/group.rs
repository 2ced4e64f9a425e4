//! Groups: who of their members is here, and what they are told.

use std::sync::Arc;

use prost::Message;

use super::Ports;
use super::deliver::addressed;
use crate::hub::{Frame, Peer};
use crate::store::Audience;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, GatewayRef, monotonic_ms};
use crate::wire::encode;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{Delivery, DeliveryClass, Envelope};

/// How long it is believed which gateways have a member online.
const AUDIENCE_AGE_MS: u64 = 5_000;

/// What the members of a group are told of one of them.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// The frame.
    pub envelope: Envelope,
    /// How it is counted.
    pub kind: FrameKind,
    /// The connection here that it comes from, which is not told.
    pub from: Arc<Peer>,
}

impl Ports {
    /// Tells the members that are online, here and elsewhere: one item per
    /// gateway, however much there is to tell. Not stored, and not repeated.
    pub(crate) fn tell_members(&self, conversation: &ConversationId, audience: &Audience, news: &[News]) {
        self.tell_members_here(conversation, audience.mver, news);
        let mut envelopes = news.iter().map(|news| news.envelope.encode_to_vec().into());
        let Some(envelope) = envelopes.next() else { return };
        let delivery = Delivery {
            class: DeliveryClass::Control.into(),
            envelope,
            conversation_id: conversation.text(),
            mver: audience.mver,
            envelopes: envelopes.collect(),
            ..Delivery::default()
        };
        self.publish_elsewhere(&audience.gateways, &delivery);
    }

    /// The members here, each but the connections the news come from.
    fn tell_members_here(&self, conversation: &ConversationId, mver: u64, news: &[News]) {
        for news in news {
            let frame = Frame::control(encode(&news.envelope), news.kind);
            self.tell_room(conversation, mver, &frame, Some(&news.from));
        }
    }

    /// Queues a frame that is not stored for the members here. A room that is
    /// older than what is told is read again first, and does not hear of it:
    /// it may hold somebody who is out.
    pub(super) fn tell_room(
        &self,
        conversation: &ConversationId,
        mver: u64,
        frame: &Frame,
        except: Option<&Arc<Peer>>,
    ) -> usize {
        let Some(room) = self.hub.rooms.get(conversation) else { return 0 };
        let Some(members) = room.members_at(mver) else {
            self.hub.gaps.outdated(conversation, mver, monotonic_ms());
            metrics().dropped_room_outdated.increment(1);
            return 0;
        };
        members.iter().map(|(user, _)| self.hub.deliver(*user, frame, except)).sum()
    }

    /// Hands an ephemeral payload to the members who are online, here and
    /// elsewhere.
    pub(super) async fn relay_to_group(
        &self,
        conversation: &ConversationId,
        envelope: &Envelope,
        except: Option<&Arc<Peer>>,
    ) {
        let Some(room) = self.hub.rooms.get(conversation) else { return };
        let mver = room.mver();
        self.tell_room(conversation, mver, &Frame::ephemeral(encode(envelope)), except);
        let gateways = match room.gateways(monotonic_ms(), AUDIENCE_AGE_MS) {
            Some(gateways) => gateways,
            None => {
                // While the store is away it reaches those here.
                let Ok(Some(roster)) = self.store.roster(conversation, &[]).await else { return };
                room.set_gateways(&roster.audience.gateways, monotonic_ms());
                roster.audience.gateways
            }
        };
        let delivery = Delivery {
            class: DeliveryClass::Ephemeral.into(),
            envelope: envelope.encode_to_vec().into(),
            conversation_id: conversation.text(),
            mver,
            ..Delivery::default()
        };
        self.publish_elsewhere(&gateways, &delivery);
    }

    /// To all of these gateways but this one.
    fn publish_elsewhere(&self, gateways: &[GatewayRef], delivery: &Delivery) {
        let elsewhere = gateways.iter().filter(|gateway| **gateway != self.own);
        let items = elsewhere.map(|gateway| addressed(gateway, Item::Delivery(delivery.clone())));
        self.bus.publish_all(items.collect());
    }
}
