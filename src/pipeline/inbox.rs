//! What other gateways hand to this one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Ports, kick};
use crate::hub::{Class, Frame, Held, Hub};
use crate::message::Mark;
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, GatewayId, UserId};
use crate::wire::frame_encoded;
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{BusItem, Delivery, DeliveryClass, Membership};

/// Most changes of groups waiting to be applied.
const MEMBERSHIPS: usize = 16_384;

/// What is done in order.
#[derive(Debug)]
enum Work {
    Change(Membership),
    /// Somebody waits until all before it is applied.
    Barrier(oneshot::Sender<()>),
}

/// Receives bus items; exists before the pipeline, and serves probes and kicks
/// from then on.
#[derive(Debug)]
pub(crate) struct Inbox {
    hub: Arc<Hub>,
    probes: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// Once there is a pipeline.
    ports: OnceLock<Weak<Ports>>,
    memberships: OnceLock<mpsc::Sender<Work>>,
}

impl Inbox {
    /// Delivers into `hub`.
    #[must_use]
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { hub, probes: Mutex::default(), ports: OnceLock::new(), memberships: OnceLock::new() })
    }

    /// Stored messages and changes of groups are served from now on.
    pub(crate) fn open(&self, ports: &Arc<Ports>, stop: &CancellationToken) {
        let (queue, mut changes) = mpsc::channel::<Work>(MEMBERSHIPS);
        let _ = self.ports.set(Arc::downgrade(ports));
        let _ = self.memberships.set(queue);
        let ports = Arc::clone(ports);
        // One after the other: their order is what they mean.
        spawn_core("memberships", stop, async move {
            while let Some(work) = changes.recv().await {
                match work {
                    Work::Change(membership) => ports.members_changed(&membership).await,
                    Work::Barrier(done) => drop(done.send(())),
                }
            }
        });
    }

    /// Waits until every change of members received so far is applied.
    pub(crate) async fn applied(&self) {
        let (done, all) = oneshot::channel();
        let Some(queue) = self.memberships.get() else { return };
        if queue.send(Work::Barrier(done)).await.is_ok() {
            let _ = all.await;
        }
    }

    /// Takes one item. Never waits.
    pub(crate) fn receive(&self, _source: &GatewayId, item: BusItem) {
        match item.item {
            Some(Item::Delivery(delivery)) => self.deliver(&delivery),
            Some(Item::Kick(order)) => {
                kick::obey(&self.hub, &order);
            }
            Some(Item::Probe(probe)) => {
                if let Some(waiting) = self.probes.lock().remove(&probe.nonce) {
                    // Nobody waits any more: the probe was late.
                    let _ = waiting.send(());
                }
            }
            Some(Item::Membership(membership)) => {
                let queue = self.memberships.get();
                if queue.is_none_or(|queue| queue.try_send(Work::Change(membership)).is_err()) {
                    metrics().dropped_membership_full.increment(1);
                }
            }
            Some(Item::Presence(changes)) => {
                if let Some(ports) = self.ports.get().and_then(Weak::upgrade) {
                    ports.presence_changed(&changes);
                }
            }
            // It has done its work before it comes here.
            Some(Item::Mark(_)) => {}
            // An item of a newer gateway; its version said it may be skipped.
            None => metrics().bus_ignored_version.increment(1),
        }
    }

    /// A number to probe with, and its arrival.
    pub(crate) fn expect_probe(&self) -> (u64, oneshot::Receiver<()>) {
        let nonce = fastrand::u64(1..);
        let (arrived, arrival) = oneshot::channel();
        let mut probes = self.probes.lock();
        probes.retain(|_, waiting| !waiting.is_closed());
        probes.insert(nonce, arrived);
        (nonce, arrival)
    }

    /// A stored message: to users here, or to the members of a group. One that
    /// does not say which message it is is none.
    fn deliver_stored(&self, ports: &Ports, delivery: &Delivery) {
        let (epoch, seq, id) = (delivery.epoch, delivery.seq, delivery.message_id);
        let conversation = ConversationId::parse(&delivery.conversation_id).ok();
        let Some(conversation) = conversation.filter(|_| seq > 0 && epoch > 0) else {
            return metrics().bus_ignored_broken.increment(1);
        };
        let mark = Mark { conversation, epoch, seq, id };
        let room = mark.conversation.is_group().then(|| self.hub.rooms.get(&mark.conversation)).flatten();
        let frame = Frame::copy(frame_encoded(&delivery.envelope), Arc::new(mark));
        let reached = match room {
            Some(room) => ports.offer_to_room(&room, &[Held { frame, except: None, mver: delivery.mver }]),
            None => {
                let users = delivery.user_ids.iter().filter_map(|&id| UserId::new(id).ok());
                ports.offer_to_users(&users.collect::<Vec<_>>(), &frame, None).iter().sum()
            }
        };
        metrics().deliveries_local.increment(reached);
    }

    fn deliver(&self, delivery: &Delivery) {
        // Nobody is connected before there is a pipeline.
        let Some(ports) = self.ports.get().and_then(Weak::upgrade) else { return };
        let (class, kind) = match delivery.class() {
            DeliveryClass::Push => return self.deliver_stored(&ports, delivery),
            DeliveryClass::Ephemeral => (Class::Ephemeral, FrameKind::Ephemeral),
            DeliveryClass::Control | DeliveryClass::Unspecified => (Class::Control, FrameKind::Ack),
        };
        let frame = |envelope| Frame { bytes: frame_encoded(envelope), class, kind, mark: None };
        if let Ok(group) = ConversationId::parse(&delivery.conversation_id) {
            for envelope in std::iter::once(&delivery.envelope).chain(&delivery.envelopes) {
                ports.tell_room(&group, delivery.mver, &frame(envelope), None);
            }
            return;
        }
        let frame = frame(&delivery.envelope);
        let reached = if delivery.all {
            self.hub.deliver_all(&frame)
        } else {
            let users = delivery.user_ids.iter().filter_map(|&id| UserId::new(id).ok());
            users.map(|user| self.hub.deliver(user, &frame, None)).sum()
        };
        metrics().deliveries_local.increment(u64::try_from(reached).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{Testbed, user};
    use super::*;

    #[tokio::test]
    async fn a_push_that_is_no_stored_message_is_refused() {
        let bed = Testbed::new();
        let gateway = bed.gateway("gw");
        let two = bed.connect(&gateway, 2).await;
        let push = bed.append(&ConversationId::between(user(1), user(2)), 1).await;
        let genuine = Delivery {
            class: DeliveryClass::Push.into(),
            user_ids: vec![2],
            conversation_id: push.conversation_id.clone(),
            seq: push.seq,
            epoch: push.epoch,
            message_id: 1,
            ..Delivery::default()
        };
        let forged = [
            Delivery { seq: 0, ..genuine.clone() },
            Delivery { seq: -1, ..genuine.clone() },
            Delivery { epoch: 0, ..genuine.clone() },
            Delivery { conversation_id: String::new(), ..genuine.clone() },
            Delivery { conversation_id: String::new(), seq: 0, all: true, ..genuine.clone() },
        ];
        for delivery in forged {
            gateway.receive(Item::Delivery(delivery));
            assert_eq!(two.outbox.backlog(), (0, 0));
        }
        gateway.receive(Item::Delivery(genuine));
        assert_eq!(two.outbox.backlog().0, 1);
    }
}
