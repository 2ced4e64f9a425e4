//! What a client's frame asks for.

use std::sync::Arc;

use super::Context;
use crate::hub::{Frame, Peer};
use crate::message::{Draft, Pulling};
use crate::pipeline::{Origin, Pull, Relay, RelayTo, Report, SendRequest, failed};
use crate::store::Progress;
use crate::telemetry::{FrameKind, Refusal, metrics};
use crate::types::{CloseReason, ConversationId, UserId, unix_ms};
use crate::wire::pb::{
    Ack, AckStatus, Custom, Envelope, Error, ErrorCode, Header, Heartbeat, HeartbeatAck, Position, Receipt,
    SendMessageReq, Typing,
};
use crate::wire::{Payload, decode, encode, error, reply};

/// Longest topic of a custom payload, bytes.
const MAX_TOPIC: usize = 256;
/// Most addressees of a custom payload.
const MAX_ADDRESSEES: usize = 256;

/// A frame that ends the connection, and the text that goes with it.
pub(super) type Fatal = (CloseReason, String);

impl Context {
    /// Takes one frame that is no heartbeat. Whatever is refused is answered;
    /// only bytes that are no envelope end the connection.
    pub(super) fn take_frame(&self, peer: &Arc<Peer>, frame: &[u8]) -> Result<(), Fatal> {
        let envelope = decode(frame)
            .map_err(|error| (CloseReason::InvalidPayload, format!("broken envelope: {error}")))?;
        let trace_id = envelope.header.map(|header| header.trace_id).unwrap_or_default();
        let payload = envelope.payload;
        metrics().count_in(payload.as_ref().map_or(FrameKind::Other, kind_of));
        let refused = match payload {
            Some(Payload::Send(request)) => {
                self.take_send(peer, trace_id, request);
                return Ok(());
            }
            Some(Payload::Hb(heartbeat)) => {
                self.take_heartbeat(peer, &trace_id, &heartbeat);
                return Ok(());
            }
            Some(Payload::Ack(ack)) => self.take_ack(peer, &ack),
            Some(Payload::Read(receipt)) => self.take_receipt(peer, &receipt),
            Some(Payload::Typing(typing)) => self.take_typing(peer, typing),
            Some(Payload::Custom(custom)) => self.take_custom(peer, &trace_id, custom),
            Some(Payload::Sync(request)) => {
                self.pipeline.pull(peer, trace_id, Pull::Sync(request));
                return Ok(());
            }
            Some(Payload::Conversations(request)) => {
                self.pipeline.pull(peer, trace_id, Pull::Conversations(request));
                return Ok(());
            }
            Some(Payload::Identify(_)) => {
                Err(refusal(ErrorCode::Invalid, "identify: this connection has its identity"))
            }
            Some(Payload::Presence(request)) => {
                self.pipeline.watch(peer, trace_id, request);
                return Ok(());
            }
            Some(other) => {
                Err(refusal(ErrorCode::Invalid, format!("{} comes from the server only", name_of(&other))))
            }
            None => Err(refusal(ErrorCode::Unsupported, "this payload is not known here")),
        };
        if let Err(error) = refused {
            answer(peer, &trace_id, Payload::Error(*error), FrameKind::Other);
        }
        Ok(())
    }

    fn take_send(&self, peer: &Arc<Peer>, trace_id: String, request: SendMessageReq) {
        metrics().messages_received.increment(1);
        let (client_msg_id, conversation_id) =
            (request.client_msg_id.clone(), request.conversation_id.clone());
        match Draft::from_client(request, peer.identity.user, peer.identity.device.as_str()) {
            Ok(draft) => {
                peer.send_started();
                let origin = Origin::Peer { peer: Arc::clone(peer), trace_id };
                self.pipeline.send(SendRequest::new(draft, origin));
            }
            Err(refused) => {
                let why = match refused.code() {
                    ErrorCode::Invalid => Refusal::Invalid,
                    _ => Refusal::Forbidden,
                };
                metrics().count_refused(why);
                let ack = failed(client_msg_id, conversation_id, error(refused.code(), refused.to_string()));
                answer(peer, &trace_id, Payload::Ack(ack), FrameKind::Ack);
            }
        }
    }

    fn take_heartbeat(&self, peer: &Peer, trace_id: &str, heartbeat: &Heartbeat) {
        let ack = HeartbeatAck {
            client_time: heartbeat.client_time,
            server_time: unix_ms(),
            next_interval_ms: self.draw_interval_ms(),
            tops: peer.outbox.news().into_iter().map(top).collect(),
        };
        answer(peer, trace_id, Payload::HbAck(ack), FrameKind::Heartbeat);
    }

    fn take_ack(&self, peer: &Arc<Peer>, ack: &Ack) -> Result<(), Box<Error>> {
        if ack.status() != AckStatus::Delivered {
            return Err(refusal(ErrorCode::Invalid, "ack.status from a client must be DELIVERED"));
        }
        self.report(peer, &ack.conversation_id, "ack.seq", ack.seq, 0)
    }

    fn take_receipt(&self, peer: &Arc<Peer>, receipt: &Receipt) -> Result<(), Box<Error>> {
        self.report(peer, &receipt.conversation_id, "read.readSeq", receipt.read_seq, receipt.read_seq)
    }

    fn report(
        &self,
        peer: &Arc<Peer>,
        conversation: &str,
        field: &str,
        seq: i64,
        read: i64,
    ) -> Result<(), Box<Error>> {
        let conversation = self.membership(conversation, peer.identity.user)?;
        if seq <= 0 {
            return Err(refusal(ErrorCode::Invalid, format!("{field} must be positive")));
        }
        let progress = Progress { conversation, user: peer.identity.user, delivered: seq, read };
        self.pipeline.acknowledge(Report { progress, from: Arc::clone(peer) });
        Ok(())
    }

    /// The conversation; not found when `user` is not in it.
    fn membership(&self, conversation: &str, user: UserId) -> Result<ConversationId, Box<Error>> {
        let parsed = ConversationId::parse(conversation)
            .map_err(|e| refusal(ErrorCode::Invalid, format!("conversationId: {e}")))?;
        if !self.pipeline.is_member(user, &parsed) {
            let conversation_id = conversation.to_owned();
            return Err(Box::new(Error {
                conversation_id,
                ..error(ErrorCode::NotFound, "conversation not found")
            }));
        }
        Ok(parsed)
    }

    fn take_typing(&self, peer: &Arc<Peer>, typing: Typing) -> Result<(), Box<Error>> {
        let conversation = self.membership(&typing.conversation_id, peer.identity.user)?;
        let stamped = Typing { by_user_id: peer.identity.user.get(), ..typing };
        let envelope = stamp(peer, "", Payload::Typing(stamped));
        let request_id = String::new();
        let to = RelayTo::Conversation(conversation);
        self.pipeline.relay(Relay { from: Arc::clone(peer), to, envelope, request_id });
        Ok(())
    }

    fn take_custom(&self, peer: &Arc<Peer>, trace_id: &str, custom: Custom) -> Result<(), Box<Error>> {
        let user = peer.identity.user;
        let refuse = |message: &str| {
            let ref_request_id = custom.request_id.clone();
            Err(Box::new(Error { ref_request_id, ..error(ErrorCode::Invalid, message) }))
        };
        if custom.topic.is_empty() || custom.topic.len() > MAX_TOPIC {
            return refuse("custom.topic must be 1-256 bytes");
        }
        if custom.to_user_ids.len() > MAX_ADDRESSEES {
            return refuse("custom.toUserIds has more than 256 entries");
        }
        let addressees: Result<Vec<UserId>, _> =
            custom.to_user_ids.iter().map(|&id| UserId::new(id)).collect();
        let to = match (custom.conversation_id.as_str(), addressees) {
            (_, Err(error)) => return refuse(&format!("custom.toUserIds: {error}")),
            ("", Ok(users)) if users.is_empty() => {
                return refuse("custom needs a conversationId or toUserIds");
            }
            ("", Ok(mut users)) => {
                users.sort_unstable();
                users.dedup();
                users.retain(|addressee| *addressee != user);
                RelayTo::Partners(users)
            }
            (id, Ok(users)) => {
                let conversation = self.membership(id, user)?;
                let other = conversation.peer_of(user);
                if users.iter().any(|addressee| Some(*addressee) != other) {
                    return refuse("custom.toUserIds names users outside conversationId");
                }
                RelayTo::Conversation(conversation)
            }
        };
        let request_id = custom.request_id.clone();
        let stamped = Custom { from_user_id: user.get(), to_user_ids: Vec::new(), ..custom };
        let envelope = stamp(peer, trace_id, Payload::Custom(stamped));
        self.pipeline.relay(Relay { from: Arc::clone(peer), to, envelope, request_id });
        Ok(())
    }
}

fn refusal(code: ErrorCode, message: impl Into<String>) -> Box<Error> {
    Box::new(error(code, message))
}

/// A conversation that has grown while the client was to pull it.
fn top(pulling: Pulling) -> Position {
    let Pulling { conversation, epoch, top, .. } = pulling;
    Position { conversation_id: conversation.text(), epoch, seq: top, ..Position::default() }
}

/// The server names the sender; what the client wrote there is ignored.
fn stamp(peer: &Peer, trace_id: &str, payload: Payload) -> Envelope {
    let mut envelope = reply(trace_id, payload);
    if let Some(header) = &mut envelope.header {
        *header = Header {
            user_id: peer.identity.user.get(),
            device_id: peer.identity.device.to_string(),
            ..std::mem::take(header)
        };
    }
    envelope
}

fn answer(peer: &Peer, trace_id: &str, payload: Payload, kind: FrameKind) {
    peer.answer(Frame::control(encode(&reply(trace_id, payload)), kind));
}

const fn kind_of(payload: &Payload) -> FrameKind {
    match payload {
        Payload::Send(_) => FrameKind::Send,
        Payload::Ack(_) => FrameKind::Ack,
        Payload::Hb(_) => FrameKind::Heartbeat,
        Payload::Read(_) => FrameKind::Receipt,
        Payload::Typing(_) | Payload::Custom(_) => FrameKind::Ephemeral,
        _ => FrameKind::Other,
    }
}

const fn name_of(payload: &Payload) -> &'static str {
    match payload {
        Payload::Ready(_) => "ready",
        Payload::HbAck(_) => "hb_ack",
        Payload::Push(_) => "push",
        Payload::PushBatch(_) => "push_batch",
        Payload::SyncResp(_) => "sync_resp",
        Payload::Hint(_) => "hint",
        Payload::GoAway(_) => "go_away",
        Payload::Kick(_) => "kick",
        Payload::Error(_) => "error",
        Payload::PresenceEvent(_) => "presence_event",
        Payload::ConversationsResp(_) => "conversations_resp",
        Payload::ConversationEvent(_) => "conversation_event",
        _ => "this payload",
    }
}
