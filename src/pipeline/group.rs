//! Groups: who of their members is here, and what they are told.

use std::sync::Arc;

use prost::Message;

use super::Ports;
use super::deliver::addressed;
use crate::hub::Peer;
use crate::store::Audience;
use crate::telemetry::FrameKind;
use crate::types::ConversationId;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{Delivery, DeliveryClass, Envelope};

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
            conversation_id: conversation.to_string(),
            mver: audience.mver,
            envelopes: envelopes.collect(),
            ..Delivery::default()
        };
        let elsewhere = audience.gateways.iter().filter(|gateway| **gateway != self.own);
        let items = elsewhere.map(|gateway| addressed(gateway, Item::Delivery(delivery.clone())));
        self.bus.publish_all(items.collect());
    }

    /// The members here, each but the connections the news come from.
    #[expect(clippy::unused_self, reason = "until the hub knows the members here")]
    fn tell_members_here(&self, _conversation: &ConversationId, _mver: u64, _news: &[News]) {}

    /// Registers the interest in every group with members here again.
    #[expect(clippy::unused_async, reason = "until the hub knows the members here")]
    pub(crate) async fn register_interest(&self) {}
}
