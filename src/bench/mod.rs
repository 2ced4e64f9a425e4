//! What benchmarks drive of the inside, as its callers would; not part of the
//! interface.

use std::sync::Arc;
use std::task::Waker;

use tokio::net::TcpStream;

use crate::hub::{Fanned, Frame, Held, Hub, OutboxLimits, Peer, PeerIdentity, Room, Run, Start};
use crate::message::{Mark, Place, Places};
use crate::telemetry::FrameKind;
use crate::types::{ConnId, ConversationId, DeviceId, UserId};

const LIMITS: OutboxLimits = OutboxLimits { bytes: 1 << 20, frames: 1_000 };

fn mark(conversation: &ConversationId, seq: i64) -> Mark {
    Mark { conversation: conversation.clone(), epoch: 1_790_000_000_000_000, seq, id: seq << 22 }
}

/// A group, and its members with a connection each.
#[derive(Debug)]
pub struct Crowd {
    hub: Hub,
    room: Arc<Room>,
    peers: Vec<Arc<Peer>>,
    said: i64,
}

impl Crowd {
    /// Of users 1 to `members`.
    #[must_use]
    pub fn new(members: i64) -> Option<Self> {
        let hub = Hub::new(LIMITS);
        let group = ConversationId::parse("g:everybody").ok()?;
        let room = hub.rooms.open(&group, 0);
        let mut peers = Vec::new();
        for id in 1..=members {
            let (user, device) = (UserId::new(id).ok()?, DeviceId::new("phone").ok()?);
            let conn = ConnId(u64::try_from(id).unwrap_or(0));
            let peer = Arc::new(Peer::new(
                PeerIdentity { conn, user, device, expires_at: PeerIdentity::NEVER },
                1,
                LIMITS,
            ));
            hub.register(&peer);
            peer.outbox.open(Vec::new(), Start::default(), LIMITS);
            peer.outbox.enter(&group, mark(&group, 0).epoch, 0, 0);
            room.enter(user, 0, 1);
            peers.push(peer);
        }
        Some(Self { hub, room, peers, said: 0 })
    }

    /// Gives each member a socket to be written to.
    pub fn attach(&self, sockets: impl IntoIterator<Item = Arc<TcpStream>>) {
        self.peers.iter().zip(sockets).for_each(|(peer, socket)| peer.outbox.attach(socket));
    }

    /// A message of 128 bytes to everybody; returns to how many.
    pub fn say(&mut self) -> u64 {
        self.said += 1;
        let mark = Arc::new(mark(&self.room.conversation, self.said));
        let frame = Frame::copy(vec![b'x'; 128].into(), mark);
        let run = Run::new(vec![Held { frame, except: None, mver: 0 }]);
        let mut fanned = Fanned::default();
        let seats = self.room.seats_at(0, &self.hub).unwrap_or_default();
        run.offer_to(&seats, &mut fanned);
        fanned.taken
    }

    /// Whether a user is here, as a message to one user asks.
    #[must_use]
    pub fn look_up(&self, user: i64) -> bool {
        UserId::new(user).is_ok_and(|user| self.hub.devices(user).is_some())
    }

    /// Something for the first member, queued, and taken as his connection does.
    #[must_use]
    pub fn answer(&self) -> usize {
        let Some(peer) = self.peers.first() else { return 0 };
        peer.answer(Frame::control(vec![b'x'; 64].into(), FrameKind::Ack));
        let queue = peer.outbox.take(Waker::noop()).queue;
        let (frames, bytes) = (queue.len(), queue.iter().map(|frame| frame.bytes.len()).sum());
        drop(queue);
        peer.outbox.restore(Default::default(), bytes, frames, 0);
        frames
    }
}

/// How far a connection is in some conversations.
#[derive(Debug)]
pub struct Standing {
    places: Places,
    conversation: ConversationId,
    seq: i64,
}

impl Standing {
    /// In so many.
    #[must_use]
    pub fn new(conversations: i64) -> Option<Self> {
        let named =
            |with: i64| Some(ConversationId::between(UserId::new(1).ok()?, UserId::new(1 + with).ok()?));
        let all = (1..=conversations).map(named).collect::<Option<Vec<_>>>()?;
        let mut places = Places::default();
        places.open(all.iter().map(|conversation| Place::behind(&mark(conversation, 1))).collect(), true);
        Some(Self { places, conversation: named(conversations)?, seq: 1 })
    }

    /// The next message of one, and the same once more: given once.
    pub fn offer(&mut self) -> bool {
        self.seq += 1;
        let mark = mark(&self.conversation, self.seq);
        self.places.offer(&mark, false) != self.places.offer(&mark, false)
    }
}
