//! One device: what it does, and how it takes what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::{Known, Ledger, Reached};
use super::session::{Session, Way};
use super::world::{Acked, World};
use crate::message::Draft;
use crate::pipeline::{Origin, Pull, Report, SendRequest};
use crate::store::Progress;
use crate::types::{CloseReason, ConversationId, DeviceId, UserId};
use crate::wire::Payload;
use crate::wire::pb::send_message_req::Content;
use crate::wire::pb::{
    Ack, AckStatus, ConversationsReq, Error, ErrorCode, MessageType, Position, PushBatch, SendMessageReq,
    SyncReq, SyncResp,
};

fn ms(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}

/// A send that was not acknowledged yet.
#[derive(Debug, Clone)]
struct Unacked {
    conversation: ConversationId,
    id: String,
    next: Instant,
}

#[derive(Debug)]
struct Want {
    at: Instant,
    /// The request it waits for.
    asked: Option<String>,
    /// The first seq it asked for.
    from: i64,
    /// Wanted anew since it asked.
    again: bool,
}

/// What outlives its connections.
pub(super) struct Client {
    world: Arc<World>,
    pub user: UserId,
    pub device: DeviceId,
    pub ledger: Mutex<Ledger>,
    /// Whether it is connected, and has heard `Ready`.
    pub connected: Mutex<Option<(usize, Arc<crate::hub::Peer>)>>,
    unacked: Mutex<Vec<Unacked>>,
    sent: Mutex<u32>,
}

/// What does not.
struct Visit<'a> {
    client: &'a Client,
    session: Session,
    wants: BTreeMap<ConversationId, Want>,
    requests: u32,
    /// The list of conversations is to be read.
    unlisted: Option<Instant>,
    /// Reads nothing until then.
    deaf: Instant,
    /// Reads frame by frame until then.
    slow: Instant,
}

impl Client {
    pub(super) fn new(world: &Arc<World>, user: UserId, device: &str) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            user,
            device: DeviceId::new(device).unwrap(),
            ledger: Mutex::default(),
            connected: Mutex::default(),
            unacked: Mutex::default(),
            sent: Mutex::default(),
        })
    }

    pub(super) fn unacked(&self) -> usize {
        self.unacked.lock().len()
    }

    /// Connects, serves, and comes back, for ever.
    pub(super) async fn live(self: Arc<Self>) {
        sleep(ms(0..200)).await;
        loop {
            let resumes = fastrand::u32(0..4) > 0;
            let have = if resumes { self.ledger.lock().positions() } else { Vec::new() };
            let session = Session::open(&self.world, self.user, &self.device, &have).await;
            for unacked in self.unacked.lock().iter_mut() {
                unacked.next = Instant::now();
            }
            let now = Instant::now();
            let mut visit = Visit {
                client: &self,
                session,
                wants: BTreeMap::new(),
                requests: 0,
                unlisted: None,
                deaf: now,
                slow: now,
            };
            let reason = visit.serve().await;
            *self.connected.lock() = None;
            let twin = reason.is_none();
            match reason {
                Some(reason) => visit.session.close(reason),
                // Nobody listens to it any more, and nobody closes it.
                None => drop(tokio::spawn(ignore(visit.session))),
            }
            if !twin && !self.world.is_settling() {
                sleep(ms(1..2_000)).await;
            }
            if reason == Some(CloseReason::Replaced) {
                sleep(ms(50..100)).await;
            }
        }
    }

    /// A message of its own, new.
    fn compose(&self) {
        let all = self.world.of(self.user);
        if all.is_empty() {
            return;
        }
        let conversation = all[fastrand::usize(0..all.len())].clone();
        let mut sent = self.sent.lock();
        *sent += 1;
        let id = format!("{}{}-{sent}", self.user, self.device);
        self.unacked.lock().push(Unacked { conversation, id, next: Instant::now() });
    }

    /// The last word in a conversation.
    pub(super) fn say(&self, conversation: &ConversationId) {
        let id = format!("{}{}-last", self.user, self.device);
        let conversation = conversation.clone();
        self.unacked.lock().push(Unacked { conversation, id, next: Instant::now() });
    }
}

/// A connection that its client has forgotten.
async fn ignore(mut session: Session) {
    let reason = loop {
        match session.read(4).await {
            Ok(_) => sleep(ms(10..200)).await,
            Err(reason) => break reason,
        }
    };
    session.close(reason);
}

impl Visit<'_> {
    /// Until it ends; `None` = the client forgets it and connects anew.
    async fn serve(&mut self) -> Option<CloseReason> {
        let mut act_at = Instant::now() + ms(20..400);
        loop {
            self.send_due();
            self.pull_due();
            let now = Instant::now();
            let settling = self.client.world.is_settling();
            let deaf = self.deaf > now && !settling;
            let most = if self.slow > now && !settling { 1 } else { usize::MAX };
            tokio::select! {
                biased;
                read = self.session.read(most), if !deaf => match read {
                    Ok(envelopes) => {
                        for envelope in envelopes {
                            self.take(envelope.payload.unwrap());
                        }
                        if most == 1 {
                            sleep(ms(5..80)).await;
                        }
                    }
                    Err(reason) => return Some(reason),
                },
                () = sleep_until(act_at) => {
                    act_at = Instant::now() + ms(20..400);
                    self.beat();
                    if !settling && let Some(left) = self.act() {
                        return left;
                    }
                }
            }
        }
    }

    /// Learns, as by a heartbeat, what has grown of that which is to be pulled.
    fn beat(&mut self) {
        for pulling in self.session.peer.outbox.news() {
            self.want(&pulling.conversation, Duration::ZERO);
        }
    }

    /// Does something; `Some` = it leaves, and how.
    fn act(&mut self) -> Option<Option<CloseReason>> {
        let plan = &self.client.world.plan;
        match fastrand::u32(0..100) {
            0..50 => self.client.compose(),
            50..60 => self.acknowledge(),
            60..64 if !plan.calm => self.want_any(),
            64..72 if plan.slow => self.deaf = Instant::now() + ms(100..3_000),
            72..80 if plan.slow => self.slow = Instant::now() + ms(100..3_000),
            80..84 if plan.hops => return Some(Some(CloseReason::PeerGone)),
            84..87 if plan.hops => return Some(None),
            87..90 => self.repeat(),
            _ => {}
        }
        None
    }

    fn want_any(&mut self) {
        let known: Vec<_> = self.client.ledger.lock().known.keys().cloned().collect();
        if !known.is_empty() {
            self.want(&known[fastrand::usize(0..known.len())], Duration::ZERO);
        }
    }

    fn acknowledge(&self) {
        let ledger = self.client.ledger.lock();
        let all: Vec<_> = ledger.known.iter().filter(|(_, known)| known.upto() > 0).collect();
        if all.is_empty() {
            return;
        }
        let (conversation, known) = all[fastrand::usize(0..all.len())];
        let progress = Progress {
            conversation: conversation.clone(),
            user: self.client.user,
            delivered: known.upto(),
            read: 0,
        };
        let from = Arc::clone(&self.session.peer);
        self.pipeline().acknowledge(Report { progress, from });
    }

    /// Sends again what is acknowledged already.
    fn repeat(&self) {
        let user = self.client.user;
        let acked = self.client.world.acked.lock();
        let own: Vec<_> = acked.keys().filter(|(_, from, _)| *from == user).collect();
        if own.is_empty() || self.client.world.plan.calm {
            return;
        }
        let (conversation, _, id) = own[fastrand::usize(0..own.len())].clone();
        if id.starts_with(&format!("{user}{}-", self.client.device)) {
            self.client.unacked.lock().push(Unacked { conversation, id, next: Instant::now() });
        }
    }

    fn pipeline(&self) -> &crate::pipeline::Pipeline {
        &self.client.world.gateways[self.session.gateway].pipeline
    }

    fn send_due(&self) {
        let now = Instant::now();
        let mut unacked = self.client.unacked.lock();
        for unacked in unacked.iter_mut().filter(|unacked| unacked.next <= now) {
            unacked.next = now + Duration::from_secs(3_600);
            let request = SendMessageReq {
                conversation_id: unacked.conversation.to_string(),
                client_msg_id: unacked.id.clone(),
                r#type: MessageType::Text.into(),
                content: Some(Content::TextContent(format!("{:60}", unacked.id))),
                ..SendMessageReq::default()
            };
            let peer = &self.session.peer;
            let draft = Draft::from_client(request, self.client.user, self.client.device.as_str()).unwrap();
            self.session.note(Some(&unacked.conversation), &format!("sends {}", unacked.id));
            peer.send_started();
            let origin = Origin::Peer { peer: Arc::clone(peer), trace_id: String::new() };
            self.pipeline().send(SendRequest::new(draft, origin));
        }
    }

    fn want(&mut self, conversation: &ConversationId, after: Duration) {
        let at = Instant::now() + after;
        let want =
            self.wants.entry(conversation.clone()).or_insert(Want { at, asked: None, from: 0, again: false });
        want.again |= want.asked.is_some();
        want.at = want.at.min(at);
    }

    fn pull_due(&mut self) {
        let now = Instant::now();
        let pipeline = Arc::clone(&self.client.world.gateways[self.session.gateway].pipeline);
        let under_way = self.wants.values().filter(|want| want.asked.is_some()).count();
        let due = self.wants.iter_mut().filter(|(_, want)| want.asked.is_none() && want.at <= now);
        for (conversation, want) in due.take(2_usize.saturating_sub(under_way)) {
            let ledger = self.client.ledger.lock();
            let known = ledger.known.get(conversation);
            let upto = known.map_or(0, Known::upto);
            // Whoever does not ask for proof has to start over at another epoch.
            let proof = known.map(|known| (known.epoch, known.id_at(upto)));
            let (epoch, server_msg_id) = proof.unwrap_or_default();
            self.requests += 1;
            let request_id = self.requests.to_string();
            want.asked = Some(request_id.clone());
            (want.from, want.again) = (upto + 1, false);
            let text = format!("pulls from {}, proof {server_msg_id:?}", upto + 1);
            self.session.note(Some(conversation), &text);
            let sync = SyncReq {
                request_id,
                conversation_id: conversation.to_string(),
                from_seq: upto + 1,
                limit: fastrand::u32(1..30),
                epoch,
                server_msg_id,
                ..SyncReq::default()
            };
            pipeline.pull(&self.session.peer, String::new(), Pull::Sync(sync));
        }
        if under_way == 0 && self.unlisted.is_some_and(|at| at <= now) {
            self.unlisted = Some(now + Duration::from_secs(2));
            let request = ConversationsReq { request_id: "list".to_owned(), ..ConversationsReq::default() };
            pipeline.pull(&self.session.peer, String::new(), Pull::Conversations(request));
        }
    }

    fn take(&mut self, payload: Payload) {
        match payload {
            Payload::Ready(ready) => {
                *self.client.connected.lock() = Some((self.session.gateway, Arc::clone(&self.session.peer)));
                self.session.complete = !ready.has_more;
                self.unlisted = ready.has_more.then(Instant::now);
                self.listed(&ready.conversations, true);
            }
            Payload::ConversationsResp(list) => {
                self.unlisted = None;
                self.listed(&list.conversations, false);
            }
            Payload::PushBatch(batch) => self.replayed(&batch),
            Payload::Push(push) => {
                let conversation = ConversationId::parse(&push.conversation_id).unwrap();
                self.session.take(&mut self.client.ledger.lock(), &push, Way::Pushed);
                let hole = self.client.ledger.lock().known.get(&conversation).is_some_and(Known::has_hole);
                if hole {
                    self.want(&conversation, Duration::ZERO);
                }
            }
            Payload::Hint(hint) => {
                let conversation = ConversationId::parse(&hint.conversation_id).unwrap();
                self.session.note(Some(&conversation), &format!("is told to pull up to {}", hint.top_seq));
                self.session.pulling.insert(conversation.clone());
                self.want(&conversation, Duration::from_millis(hint.pull_delay_ms.into()));
            }
            Payload::SyncResp(response) => self.pulled(&response),
            Payload::Ack(ack) => self.acked(&ack),
            Payload::Error(error) => self.failed(&error),
            Payload::ConversationEvent(event) if event.user_id == self.client.user.get() => {
                let conversation = ConversationId::parse(&event.conversation_id).unwrap();
                self.session.note(Some(&conversation), &format!("hears: {:?}", event.change()));
                // It was taken out, and told to pull nothing since.
                self.session.pulling.remove(&conversation);
                self.want(&conversation, Duration::ZERO);
            }
            _ => {}
        }
    }

    /// Where conversations stand; `live` = what comes live is behind it.
    fn listed(&mut self, positions: &[Position], live: bool) {
        for position in positions {
            let conversation = ConversationId::parse(&position.conversation_id).unwrap();
            let (epoch, seq) = (position.epoch, position.seq);
            self.session.note(Some(&conversation), &format!("is told it stands at {seq}"));
            if live {
                self.session.told.insert(conversation.clone(), Reached { epoch, seq });
            }
            if live && !self.session.resumed.contains(&conversation) {
                self.session.go_on_behind(&conversation, epoch, seq);
            }
            let mut ledger = self.client.ledger.lock();
            let known = ledger.known.entry(conversation.clone()).or_insert_with(|| {
                let mut known = Known::behind(if fastrand::bool() { seq } else { 0 }, epoch);
                known.have.extend((known.base > 0).then(|| (seq, position.server_msg_id.clone())));
                known
            });
            let lacks = known.upto() != seq || known.epoch != epoch;
            drop(ledger);
            if lacks {
                self.session.unproved.insert(conversation.clone());
            }
            if lacks && !(live && self.session.resumed.contains(&conversation)) {
                self.want(&conversation, Duration::ZERO);
            }
        }
        if !live {
            return;
        }
        // What the server does not know stood somewhere else, or nowhere.
        let known: Vec<_> = self.client.ledger.lock().known.keys().cloned().collect();
        let named =
            |id: &ConversationId| self.session.resumed.contains(id) || self.session.reached.contains_key(id);
        let unnamed: Vec<_> = known.into_iter().filter(|id| !named(id)).collect();
        for conversation in unnamed {
            self.session.unproved.insert(conversation.clone());
            self.want(&conversation, Duration::ZERO);
        }
    }

    fn replayed(&mut self, batch: &PushBatch) {
        let conversation = ConversationId::parse(&batch.conversation_id).unwrap();
        let mut ledger = self.client.ledger.lock();
        let (upto, epoch) =
            ledger.known.get(&conversation).map_or((0, 0), |known| (known.upto(), known.epoch));
        if let Some(first) = batch.messages.first()
            && first.seq != upto + 1
        {
            if self.client.world.begins(&conversation, self.client.user, first.seq) {
                ledger.known.entry(conversation.clone()).or_default().skip_to(first.seq - 1);
            } else {
                self.session
                    .violation(Some(&conversation), &format!("{} is replayed behind {upto}", first.seq));
            }
        }
        self.session.note(Some(&conversation), &format!("replay of {} behind {upto}", batch.messages.len()));
        for push in &batch.messages {
            self.session.take(&mut ledger, push, Way::Replayed);
        }
        let last = batch.messages.last().map_or((epoch, upto), |last| (last.epoch, last.seq));
        self.session.go_on_behind(&conversation, last.0, last.1);
    }

    fn pulled(&mut self, response: &SyncResp) {
        let conversation = ConversationId::parse(&response.conversation_id).unwrap();
        let mut ledger = self.client.ledger.lock();
        self.session.unproved.remove(&conversation);
        let known = ledger.known.entry(conversation.clone()).or_default();
        known.skip_to(response.first_available_seq - 1);
        let want = self.wants.remove(&conversation).filter(|want| want.asked.is_some());
        let (from, again) = want.map_or((0, false), |want| (want.from, want.again));
        if known.upto() + 1 < from {
            // It has started over since it asked.
            drop(ledger);
            self.ended_at(&conversation, response);
            return self.want(&conversation, Duration::ZERO);
        }
        if known.epoch != response.epoch {
            // Proved is what came before.
            known.have.retain(|seq, _| *seq < from);
        }
        known.epoch = response.epoch;
        let text = format!("pulled {}, top {}", response.messages.len(), response.top_seq);
        self.session.note(Some(&conversation), &text);
        for push in &response.messages {
            self.session.take(&mut ledger, push, Way::Pulled);
        }
        let upto = ledger.known.get(&conversation).map_or(0, Known::upto);
        drop(ledger);
        if again || response.has_more {
            self.want(&conversation, Duration::ZERO);
        }
        if response.has_more {
            return;
        }
        if upto < response.top_seq {
            let text = format!("pulled to the end, {}, and has {upto}", response.top_seq);
            self.session.violation(Some(&conversation), &text);
        }
        if upto > response.top_seq {
            // It was told so; whether that is still there is to be proved.
            self.want(&conversation, Duration::ZERO);
        }
        self.ended_at(&conversation, response);
    }

    /// A pull has come to the end: what comes live is behind it.
    fn ended_at(&mut self, conversation: &ConversationId, response: &SyncResp) {
        if response.has_more {
            return;
        }
        if response.top_seq == 0 {
            self.session.disown_behind(conversation, 0);
        }
        let before = self.session.reached.get(conversation).copied().unwrap_or_default();
        if self.session.pulling.remove(conversation)
            || response.epoch > before.epoch
            || (response.epoch == before.epoch && response.top_seq > before.seq)
        {
            self.session.go_on_behind(conversation, response.epoch, response.top_seq);
        }
    }

    fn acked(&mut self, ack: &Ack) {
        let Ok(conversation) = ConversationId::parse(&ack.conversation_id) else { return };
        let status = ack.status();
        if ack.client_msg_id.is_empty() {
            return;
        }
        let mut unacked = self.client.unacked.lock();
        if status == AckStatus::Failed {
            let error = ack.error.clone().unwrap_or_default();
            self.session.note(Some(&conversation), &format!("{} {:?}", ack.client_msg_id, error.code()));
            match error.code() {
                ErrorCode::RetryLater => {
                    for unacked in unacked.iter_mut().filter(|unacked| unacked.id == ack.client_msg_id) {
                        unacked.next = Instant::now() + ms(200..1_200);
                    }
                }
                ErrorCode::NotFound => unacked.retain(|unacked| unacked.id != ack.client_msg_id),
                code => self.session.violation(Some(&conversation), &format!("a send failed: {code:?}")),
            }
            return;
        }
        unacked.retain(|unacked| unacked.id != ack.client_msg_id);
        drop(unacked);
        let (epoch, seq) = (ack.epoch, ack.seq);
        let text = format!("{} is {seq} e{}", ack.client_msg_id, epoch % 100_000_000);
        self.session.note(Some(&conversation), &text);
        self.record(&conversation, ack);
        if !ack.duplicate || self.session.complete || self.session.reached.contains_key(&conversation) {
            self.session.acknowledged(&conversation, epoch, seq);
        }
        let mut ledger = self.client.ledger.lock();
        let new = !conversation.is_group() && self.session.complete;
        if new {
            ledger.known.entry(conversation.clone()).or_insert_with(|| Known::behind(0, epoch));
        }
        match ledger.known.get(&conversation).map(|known| known.epoch) {
            Some(known) if known == epoch => {
                ledger.add(&conversation, epoch, seq, &ack.server_msg_id);
            }
            _ => {
                drop(ledger);
                self.want(&conversation, Duration::ZERO);
            }
        }
    }

    fn record(&self, conversation: &ConversationId, ack: &Ack) {
        let world = &self.client.world;
        let key = (conversation.clone(), self.client.user, ack.client_msg_id.clone());
        let now = Acked { seq: ack.seq, id: ack.server_msg_id.clone() };
        let held =
            world.model.all(conversation).iter().any(|m| m.seq == now.seq && m.server_msg_id == now.id);
        if !held {
            if !world.plan.damage {
                self.session
                    .violation(Some(conversation), &format!("{now:?} is acknowledged and not in the log"));
            }
            return;
        }
        let before = world.acked.lock().insert(key, now.clone());
        if let Some(before) = before.filter(|before| *before != now) {
            let text = format!("{} is {now:?} after it was {before:?}", ack.client_msg_id);
            self.session.violation(Some(conversation), &text);
        }
    }

    fn failed(&mut self, error: &Error) {
        let Ok(conversation) = ConversationId::parse(&error.conversation_id) else {
            return self.refused(error, None);
        };
        self.session.note(Some(&conversation), &format!("hears: {:?} {}", error.code(), error.message));
        self.refused(error, Some(&conversation));
        match error.code() {
            ErrorCode::ResyncRequired => {
                let current = error.current.clone().unwrap_or_default();
                self.session.unproved.remove(&conversation);
                if !error.ref_request_id.is_empty() {
                    self.session.disown_behind(&conversation, current.seq);
                    if let Some(reached) = self.session.reached.get_mut(&conversation) {
                        reached.seq = reached.seq.min(current.seq);
                    }
                } else {
                    let of =
                        self.client.ledger.lock().known.get(&conversation).map_or(0, |known| known.epoch);
                    let reached = self.session.reached.get(&conversation).map_or(of, |reached| reached.epoch);
                    self.session.disown(&conversation, reached);
                    self.session.go_on_behind(&conversation, current.epoch, current.seq);
                }
                self.client.ledger.lock().known.insert(conversation.clone(), Known::behind(0, current.epoch));
                self.want(&conversation, Duration::ZERO);
            }
            ErrorCode::NotFound => {
                self.client.ledger.lock().known.remove(&conversation);
                self.session.forget(&conversation);
                self.wants.remove(&conversation);
            }
            ErrorCode::RetryLater => {
                // Not resumed: it is as if it had not been asked for.
                self.session.unproved.insert(conversation.clone());
                if error.ref_request_id.is_empty()
                    && let Some(told) = self.session.told.get(&conversation).copied()
                {
                    self.session.go_on_behind(&conversation, told.epoch, told.seq);
                }
                self.want(&conversation, ms(100..500));
            }
            code => self.session.violation(Some(&conversation), &format!("{code:?} {}", error.message)),
        }
    }

    /// A pull is not answered with a page.
    fn refused(&mut self, error: &Error, conversation: Option<&ConversationId>) {
        if error.ref_request_id == "list" {
            self.unlisted = Some(Instant::now() + ms(100..500));
            return;
        }
        let asked = Some(error.ref_request_id.clone()).filter(|id| !id.is_empty());
        for (of, want) in self.wants.iter_mut().filter(|(_, want)| asked.is_some() && want.asked == asked) {
            want.asked = None;
            want.at = Instant::now() + ms(100..500);
            if conversation.is_none() {
                self.session.note(Some(of), &format!("hears: {:?} {}", error.code(), error.message));
            }
        }
    }
}
