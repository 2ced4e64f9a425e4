//! One connection as its client sees it: what comes over it, and in which
//! order it must.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::ledger::{Known, Ledger, Reached};
use super::world::World;
use crate::hub::{Ending, Frame, Peer, PeerIdentity, Taken};
use crate::telemetry::FrameKind;
use crate::types::{CloseReason, ConversationId, DeviceId, UserId};
use crate::wire::pb::{Envelope, Position, Push, Ready};
use crate::wire::{Payload, decode_message, encode, reply};

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Pushed,
    Replayed,
    Pulled,
}

pub(super) struct Session {
    pub world: Arc<World>,
    pub gateway: usize,
    pub peer: Arc<Peer>,
    /// Conversations that are resumed: where they are is said by the replay.
    pub resumed: BTreeSet<ConversationId>,
    /// As far as the gateway itself has handed over.
    handed: BTreeMap<ConversationId, i64>,
    pub reached: BTreeMap<ConversationId, Reached>,
    /// Where `Ready` said that conversations stand.
    pub told: BTreeMap<ConversationId, Reached>,
    /// Whatever is not in `reached` had no message when it began.
    pub complete: bool,
    pub pulling: BTreeSet<ConversationId>,
    /// It was told to pull these, and then of a change of members: if it was
    /// taken out in between, it is pushed to by now.
    pub unsure: BTreeSet<ConversationId>,
    /// What the client has of these may be of another history: nobody looked.
    pub unproved: BTreeSet<ConversationId>,
    /// It was told that it is not in these: what was on its way may come.
    left: BTreeSet<ConversationId>,
    /// Sent and acknowledged over this connection: seq → epoch.
    own: BTreeMap<ConversationId, BTreeMap<i64, u64>>,
    /// The frame of which a part has left.
    partial: Option<Bytes>,
}

impl Session {
    /// As `session::establish` does.
    pub(super) async fn open(world: &Arc<World>, user: UserId, device: &DeviceId, have: &[Position]) -> Self {
        let gateway = fastrand::usize(0..world.gateways.len());
        let at = &world.gateways[gateway];
        let conn = world.next_conn();
        let identity = PeerIdentity { conn, user, device: device.clone(), expires_at: PeerIdentity::NEVER };
        let attached = at.pipeline.attach(identity).await;
        let mut start = attached.start;
        let replay = at.ports.resume(user, have, &mut start).await;
        let ready = Ready {
            conversations: attached.conversations.positions,
            has_more: attached.conversations.has_more,
            ..Ready::default()
        };
        let front = std::iter::once(Payload::Ready(ready)).chain(replay);
        let front =
            front.map(|payload| Frame::control(encode(&reply("", payload)), FrameKind::Other)).collect();
        at.ports.open(&attached.peer, front, start);
        let parsed = |position: &Position| ConversationId::parse(&position.conversation_id).unwrap();
        let session = Self {
            world: Arc::clone(world),
            gateway,
            peer: attached.peer,
            resumed: have.iter().map(parsed).collect(),
            handed: BTreeMap::new(),
            reached: BTreeMap::new(),
            told: BTreeMap::new(),
            complete: false,
            pulling: BTreeSet::new(),
            unsure: BTreeSet::new(),
            unproved: BTreeSet::new(),
            left: BTreeSet::new(),
            own: BTreeMap::new(),
            partial: None,
        };
        session.note(None, &format!("is at {}, has {}", at.own.id, have.len()));
        session
    }

    pub(super) fn user(&self) -> UserId {
        self.peer.identity.user
    }

    pub(super) fn note(&self, conversation: Option<&ConversationId>, text: &str) {
        let identity = &self.peer.identity;
        let who = format!("{}/{}#{}", identity.user, identity.device, identity.conn);
        self.world.trace.note(conversation, format!("{who} {text}"));
    }

    pub(super) fn violation(&self, conversation: Option<&ConversationId>, text: &str) {
        let identity = &self.peer.identity;
        let who = format!("{}/{}#{}", identity.user, identity.device, identity.conn);
        self.world.trace.violation(conversation, format!("{who} {text}"));
    }

    /// Takes at most `most` frames off the outbox, as a socket would; `None` =
    /// it has ended, and why.
    pub(super) async fn read(&mut self, most: usize) -> Result<Vec<Envelope>, CloseReason> {
        let (taken, ending) = poll_fn(|cx| self.poll(cx, most)).await;
        if let (true, Some(ending)) = (taken.is_empty(), ending) {
            return Err(ending.reason);
        }
        Ok(taken.iter().map(|frame| decode_message(frame).expect("a frame of ours")).collect())
    }

    fn poll(&mut self, cx: &std::task::Context<'_>, most: usize) -> Poll<(Vec<Bytes>, Option<Ending>)> {
        let Taken { mut queue, ending, .. } = self.peer.outbox.take(cx.waker());
        let front = queue.front().map(|frame| frame.bytes.clone());
        if let Some(partial) = self.partial.take().filter(|partial| front.as_ref() != Some(partial)) {
            self.violation(None, &format!("a frame of {} bytes left in part, and no more", partial.len()));
        }
        let taken: Vec<Bytes> = queue.drain(..queue.len().min(most)).map(|frame| frame.bytes).collect();
        let bytes = taken.iter().map(Bytes::len).sum();
        let partial = !queue.is_empty() && fastrand::bool();
        self.partial = queue.front().filter(|_| partial).map(|frame| frame.bytes.clone());
        self.peer.outbox.restore(queue, bytes, taken.len(), u32::from(partial));
        if taken.is_empty() && ending.is_none() { Poll::Pending } else { Poll::Ready((taken, ending)) }
    }

    /// The end, as `session::Connection` does it.
    pub(super) fn close(&self, reason: CloseReason) {
        self.note(None, &format!("ends: {}", reason.row().label));
        self.world.gateways[self.gateway].pipeline.detach(&self.peer, reason);
        self.peer.outbox.close();
    }

    /// A send over this connection is acknowledged.
    pub(super) fn acknowledged(&mut self, conversation: &ConversationId, epoch: u64, seq: i64) {
        self.own.entry(conversation.clone()).or_default().insert(seq, epoch);
        self.advance(conversation);
    }

    /// Moves over what was sent over this connection.
    pub(super) fn advance(&mut self, conversation: &ConversationId) {
        let Some(own) = self.own.get(conversation) else { return };
        let before = self.reached.get(conversation).copied();
        // What he sees may begin with a message of his own.
        let begins = |seq: &i64| {
            let joined = conversation.is_group() && (self.complete || before.is_some());
            joined && self.world.begins(conversation, self.peer.identity.user, *seq)
        };
        let later = |seq: &i64| before.is_none_or(|reached| *seq > reached.seq);
        let first = own.iter().find(|(seq, _)| later(seq) && begins(seq));
        let new = (!conversation.is_group() && self.complete).then(Reached::default);
        let first = first.map(|(seq, epoch)| Reached { epoch: *epoch, seq: *seq });
        let Some(mut reached) = first.or(before).or(new) else { return };
        // Of which history that was shows in what comes next.
        while let Some(epoch) = own.get(&(reached.seq + 1)) {
            reached.seq += 1;
            if reached.epoch == 0 {
                reached.epoch = *epoch;
            }
        }
        self.reached.insert(conversation.clone(), reached);
    }

    /// The client is told, or finds out, where it goes on.
    pub(super) fn go_on_behind(&mut self, conversation: &ConversationId, epoch: u64, seq: i64) {
        self.reached.insert(conversation.clone(), Reached { epoch, seq });
        self.advance(conversation);
    }

    /// It goes on there, or where it is: what was handed over before both is not
    /// handed over again, all else may be.
    pub(super) fn go_on_after(&mut self, conversation: &ConversationId, epoch: u64, seq: i64) {
        if let Some(handed) = self.handed.get_mut(conversation) {
            *handed = seq.min(*handed);
        }
        self.go_on_behind(conversation, epoch, seq);
    }

    /// The gateway has handed over all up to there.
    pub(super) fn handed_up_to(&mut self, conversation: &ConversationId, seq: i64) {
        self.handed.insert(conversation.clone(), seq);
    }

    /// It is not in this conversation, or not any more.
    pub(super) fn forget(&mut self, conversation: &ConversationId) {
        self.reached.remove(conversation);
        self.handed.remove(conversation);
        self.pulling.remove(conversation);
        self.unsure.remove(conversation);
        self.own.remove(conversation);
        self.left.insert(conversation.clone());
    }

    /// What it sent is lost where it stands behind the end.
    pub(super) fn disown_behind(&mut self, conversation: &ConversationId, top: i64) {
        if let Some(own) = self.own.get_mut(conversation) {
            own.retain(|seq, _| *seq <= top);
        }
    }

    /// What it sent is of a history that ended, unless of a later epoch.
    pub(super) fn disown(&mut self, conversation: &ConversationId, epoch: u64) {
        if let Some(own) = self.own.get_mut(conversation) {
            own.retain(|_, of| *of > epoch);
        }
    }

    /// A message, to be noted and judged.
    pub(super) fn take(&mut self, ledger: &mut Ledger, push: &Push, way: Way) {
        let conversation = ConversationId::parse(&push.conversation_id).unwrap();
        let (epoch, seq) = (push.epoch, push.seq);
        self.note(
            Some(&conversation),
            &format!("{way:?} {seq} {} e{}", push.client_msg_id, epoch % 100_000_000),
        );
        if !self.world.may_see(&conversation, self.user(), seq) {
            self.violation(Some(&conversation), &format!("got {seq}, which is not his to see"));
        }
        if way == Way::Pushed {
            let has = ledger.known.get(&conversation).map_or(0, Known::upto);
            self.check_order(&conversation, push, has);
        }
        let before = ledger.known.get(&conversation).map_or(epoch, |known| known.epoch);
        if before != epoch && way == Way::Pushed && self.unproved.contains(&conversation) {
            // Of another history, perhaps: it has to pull everything again.
            ledger.known.insert(conversation.clone(), Known::behind(0, epoch));
        }
        if let Some(other) = ledger.add(&conversation, epoch, seq, &push.server_msg_id) {
            if self.unproved.contains(&conversation) {
                // It has to pull everything again.
                ledger.known.insert(conversation, Known::behind(0, epoch));
                return;
            }
            let text = format!("{seq} is {} after it was {other}, and nothing was said", push.server_msg_id);
            self.violation(Some(&conversation), &text);
        }
    }

    fn check_order(&mut self, conversation: &ConversationId, push: &Push, has: i64) {
        let (epoch, seq) = (push.epoch, push.seq);
        if self.pulling.contains(conversation) {
            self.violation(Some(conversation), &format!("{seq} is pushed where it was told to pull"));
        }
        self.advance(conversation);
        let new = (self.complete && !conversation.is_group()).then_some(Reached::default());
        let begins = conversation.is_group() && self.world.begins(conversation, self.user(), seq);
        match self.reached.get(conversation).copied().or(new) {
            Some(reached) if seq == reached.seq + 1 => {}
            _ if begins => {}
            Some(reached) if seq <= reached.seq => {
                // What it pulled of itself, or only has the ack of, may come.
                let handed = self.handed.get(conversation).is_some_and(|handed| seq <= *handed);
                let own = push.from_user_id == self.user().get();
                if handed && !own || self.world.plan.calm {
                    let text = format!("{seq} is pushed again, behind {}", reached.seq);
                    self.violation(Some(conversation), &text);
                }
                return;
            }
            // It has pulled what lies between.
            Some(_) if seq <= has + 1 => {}
            Some(reached) => {
                self.violation(Some(conversation), &format!("{seq} is pushed behind {}", reached.seq));
            }
            None if self.complete && !self.left.contains(conversation) => {
                self.violation(Some(conversation), &format!("begins with {seq}, and he joined before"));
            }
            None => {}
        }
        self.handed_up_to(conversation, seq);
        self.go_on_behind(conversation, epoch, seq);
    }
}
