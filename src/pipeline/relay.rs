//! The verb *relay*: typing and custom payloads, to whoever is online, stored
//! nowhere. While Redis is down they still reach the connections here.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Outgoing, Pipeline, Ports};
use crate::hub::{Class, Frame, Peer};
use crate::store::StoreError;
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, metrics};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Envelope, ErrorCode};
use crate::wire::{Payload, encode, error, reply};

const QUEUE: usize = 4_096;
const BATCH: usize = 256;

/// To whom a payload goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RelayTo {
    /// The others in a conversation.
    Conversation(ConversationId),
    /// These users, as far as they have a conversation with the sender.
    Partners(Vec<UserId>),
}

/// An ephemeral payload.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The connection it came from.
    pub from: Arc<Peer>,
    /// To whom.
    pub to: RelayTo,
    /// The payload, stamped.
    pub envelope: Envelope,
    /// Names the payload in an error.
    pub request_id: String,
}

/// What the task is given.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "barriers are rare; a box for each payload is not")]
pub(super) enum Work {
    Relay(Relay),
    /// Somebody waits until all before it is handed on.
    Barrier(oneshot::Sender<()>),
}

impl Pipeline {
    /// Queues a payload; a full queue drops and counts it.
    pub(crate) fn relay(&self, relay: Relay) {
        if self.relays.try_send(Work::Relay(relay)).is_err() {
            metrics().dropped_relay_full.increment(1);
        }
    }
}

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) -> mpsc::Sender<Work> {
    let (sender, relays) = mpsc::channel(QUEUE);
    let ports = Arc::clone(ports);
    spawn_core("relay", stop, run(ports, relays));
    sender
}

async fn run(ports: Arc<Ports>, mut relays: mpsc::Receiver<Work>) {
    let mut queue = Vec::with_capacity(BATCH);
    let mut batch = Vec::with_capacity(BATCH);
    while relays.recv_many(&mut queue, BATCH).await > 0 {
        let mut waiting = Vec::new();
        for work in queue.drain(..) {
            match work {
                Work::Relay(relay) => batch.push(relay),
                Work::Barrier(done) => waiting.push(done),
            }
        }
        let mut known = ports.partners(&batch).await;
        let mut outgoing = Vec::with_capacity(batch.len());
        for relay in batch.drain(..) {
            let users = match (&relay.to, &mut known) {
                (RelayTo::Conversation(conversation), _) => {
                    match conversation.peer_of(relay.from.identity.user) {
                        Some(other) => vec![other],
                        None => {
                            ports.relay_to_group(conversation, &relay.envelope, Some(&relay.from)).await;
                            continue;
                        }
                    }
                }
                (RelayTo::Partners(users), Ok(known)) => {
                    let known = known.by_ref().take(users.len());
                    known.zip(users).filter_map(|(known, user)| known.then_some(*user)).collect()
                }
                (RelayTo::Partners(_), Err(_)) => {
                    refuse(&relay, ErrorCode::RetryLater, "the store does not answer");
                    continue;
                }
            };
            if users.is_empty() {
                refuse(&relay, ErrorCode::Forbidden, "toUserIds: none of them has a conversation with you");
                continue;
            }
            let kind = FrameKind::Ephemeral;
            outgoing.push(Outgoing {
                users,
                except: None,
                envelope: relay.envelope,
                class: Class::Ephemeral,
                kind,
                mark: None,
                audience: None,
            });
        }
        if !outgoing.is_empty() {
            ports.deliver(&outgoing).await;
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn refuse(relay: &Relay, code: ErrorCode, message: &str) {
    let mut error = error(code, message);
    error.ref_request_id.clone_from(&relay.request_id);
    let bytes = encode(&reply("", Payload::Error(error)));
    relay.from.answer(Frame::control(bytes, FrameKind::Other));
}

impl Ports {
    /// For every addressee of the batch, in order, whether it has a
    /// conversation with the sender: one round trip.
    async fn partners(&self, batch: &[Relay]) -> Result<std::vec::IntoIter<bool>, StoreError> {
        let mut pairs = Vec::new();
        for relay in batch {
            if let RelayTo::Partners(users) = &relay.to {
                let from = relay.from.identity.user;
                pairs.extend(users.iter().map(|user| ConversationId::between(from, *user)));
            }
        }
        if pairs.is_empty() {
            return Ok(Vec::new().into_iter());
        }
        Ok(self.store.known(&pairs).await?.into_iter())
    }
}
