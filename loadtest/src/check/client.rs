//! A client as the protocol wants it: resumes with proof, repeats what is
//! unanswered in order, fills holes, pulls when told, and writes down all of
//! it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate::internal::Payload;
use tidegate::proto::{Ack, AckStatus, Direction, Identify, Position as WirePosition, SyncReq};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::outbox::Outbox;
use super::recorder::{Recorder, digest};
use super::replica::{Pull, Replica};
use super::shared::{Phase, Shared};
use crate::frame::{HEARTBEAT, envelope};
use crate::history::{ClientLog, Event, Position};
use crate::peer::Peer;
use crate::target::upgrade;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A client that says nothing for this long says that it lives.
const BEAT: Duration = Duration::from_secs(10);
/// Most positions of one `Identify`.
const MAX_POSITIONS: usize = 200;
/// Messages asked for at once.
const PAGE: u32 = 500;

/// What a client is to do.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) user: i64,
    /// Its first gateway is the one at this place.
    pub(super) turn: usize,
    /// Where it sends, with its own place among the floors of each.
    pub(super) conversations: Vec<(Arc<str>, Arc<AtomicI64>)>,
    /// Precedes each clientMsgId.
    pub(super) prefix: String,
    /// How often it sends …
    pub(super) tick: Duration,
    /// … how many at once …
    pub(super) burst: usize,
    /// … while no more than this are unanswered.
    pub(super) window: usize,
}

pub(super) struct Client {
    pub(super) role: Role,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) outbox: Outbox,
    pub(super) replicas: Vec<Replica>,
    /// Messages made so far.
    made: u64,
    /// Requests made so far.
    pub(super) requests: u64,
    /// `Ready` came on this connection.
    pub(super) served: bool,
    last_write: Instant,
}

impl Client {
    pub(super) fn new(role: Role, shared: Arc<Shared>) -> Self {
        let replicas = role.conversations.iter().map(|(id, _)| Replica::new(Arc::clone(id))).collect();
        Self {
            recorder: Recorder::new(role.user, shared.start),
            outbox: Outbox::new(Arc::clone(&shared)),
            role,
            shared,
            replicas,
            made: 0,
            requests: 0,
            served: false,
            last_write: Instant::now(),
        }
    }

    /// Lives until the run is over.
    pub(super) async fn run(mut self) -> ClientLog {
        let mut attempt = self.role.turn;
        let mut failures = 0_u32;
        while *self.shared.phase.borrow() != Phase::Over {
            let addresses = self.shared.gateways.borrow().clone();
            let address = attempt.checked_rem(addresses.len()).and_then(|turn| addresses.get(turn)).copied();
            let ended = match address {
                None => Err(anyhow::anyhow!("no gateway")),
                Some(address) => match self.connect(address).await {
                    Ok(peer) => {
                        failures = 0;
                        let ended = self.serve(peer).await;
                        self.disconnected(&ended);
                        ended
                    }
                    Err(error) => Err(error),
                },
            };
            if ended.is_ok() {
                break;
            }
            attempt += 1;
            failures += 1;
            let most = 100_u64 << failures.min(4);
            sleep(Duration::from_millis(fastrand::u64(20..=most))).await;
        }
        self.recorder.into_log()
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<Peer> {
        let path = format!("/ws?user={}&device={}&resume=1", self.role.user, Recorder::DEVICE);
        let have = self.positions();
        let opening = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut peer = Peer::open(stream, &upgrade(&address.to_string(), &path, "")).await?;
            let have = have.iter().map(to_wire).collect();
            peer.write(&envelope(Payload::Identify(Identify { have, ..Identify::default() }))).await?;
            anyhow::Ok(peer)
        };
        let peer = timeout(CONNECT, opening).await.context("connecting took too long")??;
        self.recorder.note(Event::Connected { to: address.to_string(), resume: have });
        Ok(peer)
    }

    async fn serve(&mut self, mut peer: Peer) -> Result<()> {
        // All clients tick together, so that sends come in bursts.
        let mut ticks = interval_at(self.shared.start, self.role.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.last_write = Instant::now();
        let shakes = self.shared.shakes.load(Ordering::Relaxed);
        let mut out = Vec::new();
        loop {
            // Both arms are cancel-safe: what was read is kept by the peer.
            let ticked = tokio::select! {
                read = peer.read() => read.map(|()| false)?,
                _ = ticks.tick() => true,
            };
            peer.each(|payload| self.take(payload))?;
            let phase = *self.shared.phase.borrow();
            if phase == Phase::Over {
                return Ok(());
            }
            if self.shared.shakes.load(Ordering::Relaxed) != shakes {
                bail!("leaves for another gateway");
            }
            if ticked && phase == Phase::Sending {
                self.make();
            }
            self.act(ticked, &mut out)?;
            if !out.is_empty() {
                peer.write(&out).await?;
                self.last_write = Instant::now();
                out.clear();
            }
        }
    }

    fn disconnected(&mut self, ended: &Result<()>) {
        let why = ended.as_ref().err().map(|error| format!("{error:#}"));
        self.recorder.note(Event::Disconnected { why });
        if std::mem::take(&mut self.served) {
            self.shared.served.fetch_sub(1, Ordering::Relaxed);
        }
        self.outbox.disconnected();
        self.replicas.iter_mut().for_each(Replica::disconnected);
    }

    /// New messages, to each conversation in turn.
    fn make(&mut self) {
        for _ in 0..self.role.burst {
            if !self.served || self.outbox.len() >= self.role.window {
                return;
            }
            let turn = usize::try_from(self.made).unwrap_or(0).checked_rem(self.role.conversations.len());
            let Some((conversation, _)) = turn.and_then(|turn| self.role.conversations.get(turn)) else {
                return;
            };
            let id: Arc<str> = Arc::from(format!("{}{}-{}", self.role.prefix, self.role.user, self.made));
            let text = format!("message {} of {}", self.made, self.role.user);
            self.made += 1;
            self.recorder.note(Event::Sent {
                conversation: Arc::clone(conversation),
                client_msg_id: Arc::clone(&id),
                digest: digest(&text),
            });
            self.outbox.push(Arc::clone(conversation), id, text);
        }
    }

    /// All there is to say now.
    fn act(&mut self, ticked: bool, out: &mut Vec<u8>) -> Result<()> {
        if !self.served {
            return Ok(());
        }
        let now = Instant::now();
        if self.outbox.is_stuck(now) {
            bail!("a send has no answer");
        }
        self.outbox.take(now, |payload| out.extend(envelope(payload)));
        // One pull at a time.
        let asking = |replica: &Replica| matches!(replica.pull, Pull::Asked { .. });
        let may_ask = |replica: &mut Replica, busy: bool| replica.wants(now) && (asking(replica) || !busy);
        let busy = self.replicas.iter().any(asking);
        if let Some(replica) = self.replicas.iter_mut().find_map(|one| may_ask(one, busy).then_some(one)) {
            self.requests += 1;
            replica.asked(self.requests, now);
            out.extend(envelope(Payload::Sync(request(replica, self.requests))));
        }
        if ticked {
            for replica in self.replicas.iter_mut().filter(|replica| replica.floor > replica.confirmed) {
                replica.confirmed = replica.floor;
                out.extend(envelope(Payload::Ack(confirmation(replica))));
            }
            if now >= self.last_write + BEAT {
                out.extend(HEARTBEAT);
            }
        }
        for (conversation, floor) in &self.role.conversations {
            let at = self.replicas.iter().find(|replica| replica.conversation == *conversation);
            let floor_of =
                |replica: &Replica| if replica.is_at_rest() { replica.floor } else { Shared::UNDER_WAY };
            floor.store(at.map_or(0, floor_of), Ordering::Relaxed);
        }
        Ok(())
    }

    fn positions(&self) -> Vec<Position> {
        self.replicas.iter().take(MAX_POSITIONS).map(Replica::position).collect()
    }
}

/// Forward from behind the floor, with the proof that the floor is real; what
/// was skipped proves nothing.
fn request(replica: &Replica, request: u64) -> SyncReq {
    let is_known = !replica.floor_id.is_empty();
    SyncReq {
        request_id: request.to_string(),
        conversation_id: replica.conversation.to_string(),
        from_seq: replica.floor + 1,
        limit: PAGE,
        direction: Direction::Forward.into(),
        epoch: if is_known { replica.epoch } else { 0 },
        server_msg_id: replica.floor_id.to_string(),
    }
}

fn confirmation(replica: &Replica) -> Ack {
    Ack {
        conversation_id: replica.conversation.to_string(),
        seq: replica.floor,
        status: AckStatus::Delivered.into(),
        ..Ack::default()
    }
}

fn to_wire(position: &Position) -> WirePosition {
    WirePosition {
        conversation_id: position.conversation.to_string(),
        epoch: position.epoch,
        seq: position.seq,
        server_msg_id: position.server_msg_id.to_string(),
        ..WirePosition::default()
    }
}
