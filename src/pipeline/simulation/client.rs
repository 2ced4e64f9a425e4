//! One device: what it does, and how it takes what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::{Known, Ledger};
use super::session::Session;
use super::world::World;
use crate::message::Draft;
use crate::pipeline::{Origin, Pull, Report, SendRequest};
use crate::store::Progress;
use crate::types::{CloseReason, ConversationId, DeviceId, UserId};
use crate::wire::pb::send_message_req::Content;
use crate::wire::pb::{ConversationsReq, MessageType, SendMessageReq, SyncReq};

pub(super) fn ms(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}

/// A send that was not acknowledged yet.
#[derive(Debug, Clone)]
pub(super) struct Unacked {
    conversation: ConversationId,
    pub(super) id: String,
    pub(super) next: Instant,
}

#[derive(Debug)]
pub(super) struct Want {
    pub(super) at: Instant,
    /// The request it waits for.
    pub(super) asked: Option<String>,
    /// The first seq it asked for.
    pub(super) from: i64,
    /// Wanted anew since it asked.
    pub(super) again: bool,
}

/// What outlives its connections.
pub(super) struct Client {
    pub world: Arc<World>,
    pub user: UserId,
    pub device: DeviceId,
    pub ledger: Mutex<Ledger>,
    /// Whether it is connected, and has heard `Ready`.
    pub connected: Mutex<Option<(usize, Arc<crate::hub::Peer>)>>,
    pub(super) unacked: Mutex<Vec<Unacked>>,
    sent: Mutex<u32>,
}

/// What does not.
pub(super) struct Visit<'a> {
    pub(super) client: &'a Client,
    pub(super) session: Session,
    pub(super) wants: BTreeMap<ConversationId, Want>,
    requests: u32,
    /// The list of conversations is to be read.
    pub(super) unlisted: Option<Instant>,
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

    pub(super) fn waiting(&self) -> usize {
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

    pub(super) fn want(&mut self, conversation: &ConversationId, after: Duration) {
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
}
