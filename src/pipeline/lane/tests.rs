//! Sends through lanes over a store that fails, with the answers and the
//! deliveries as their clients see them.

use std::collections::HashSet;
use std::task::Waker;

use proptest::prelude::*;

use super::super::{Backends, Inbox, Pipeline, Tuning};
use super::*;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange};
use crate::hub::{Hub, OutboxLimits, Peer, PeerIdentity, Start};
use crate::message::Draft;
use crate::presence::{Presence, Rules};
use crate::route::{MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::{FlakyStore, Store, flaky::Fate};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef};
use crate::wire::pb::send_message_req::Content;
use crate::wire::pb::{MessageType, SendMessageReq};
use crate::wire::{Event, Frames, Inbound, as_client, decode};

const SEND_WAIT: Duration = Duration::from_millis(150);

struct World {
    pipeline: Arc<Pipeline>,
    stop: CancellationToken,
}

impl World {
    fn new(fates: Vec<Fate>) -> Self {
        let own = GatewayRef { id: GatewayId::new("gw").unwrap(), epoch: Epoch(1) };
        let hub = Arc::new(Hub::new(OutboxLimits { bytes: 1 << 24, frames: 100_000 }));
        let inbox = Inbox::new(Arc::clone(&hub));
        let at = Destination { gateway: own.id.clone(), epoch: own.epoch };
        let receiver: crate::bus::Receiver = Arc::new(move |source, item| inbox.receive(source, item));
        let backends = Backends {
            presence: Presence::alone(own.clone(), Rules::default()),
            routes: Routes::Memory(MemoryRoutes::new(Arc::new(MemoryTable::new(ROUTE_TTL)), own.clone())),
            bus: Bus::Memory(MemoryBus::join(Arc::new(MemoryExchange::default()), at, receiver)),
            store: Store::Flaky(FlakyStore::new(fates)),
        };
        let tuning = Tuning { send_wait: SEND_WAIT, ..Tuning::for_tests() };
        let ports = Ports::new(own, hub, backends, 0, tuning);
        let stop = CancellationToken::new();
        Self { pipeline: Pipeline::start(Arc::new(ports), &stop), stop }
    }

    fn peer(&self, user: i64) -> Arc<Peer> {
        let identity = PeerIdentity {
            conn: ConnId(u64::try_from(user).unwrap()),
            user: UserId::new(user).unwrap(),
            device: DeviceId::new("d").unwrap(),
            expires_at: PeerIdentity::NEVER,
        };
        let hub = &self.pipeline.ports().hub;
        let peer = Arc::new(Peer::new(identity, 1, hub.limits()));
        hub.register(&peer);
        self.pipeline.ports().open(&peer, Vec::new(), Start { complete: true, ..Start::default() });
        peer
    }

    fn send(&self, from: &Arc<Peer>, id: &str) {
        let request = SendMessageReq {
            conversation_id: "p2p:1:2".to_owned(),
            client_msg_id: id.to_owned(),
            r#type: MessageType::Text.into(),
            content: Some(Content::TextContent(id.to_owned())),
            ..SendMessageReq::default()
        };
        let draft = Draft::from_client(request, from.identity.user, "d").unwrap();
        from.send_started();
        let origin = Origin::Peer { peer: Arc::clone(from), trace_id: String::new() };
        self.pipeline.send(SendRequest::new(draft, origin));
    }

    /// Waits until every send of `peer` is answered.
    async fn settled(&self, peer: &Peer) {
        let answered = async {
            while peer.in_flight() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
            // The delivery follows the answer, on the lane's task.
            sleep(Duration::from_millis(20)).await;
        };
        tokio::time::timeout(Duration::from_secs(20), answered).await.expect("every send is answered");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a client would have read by now.
fn read(peer: &Peer) -> Vec<Payload> {
    let mut seen = Vec::new();
    for frame in peer.outbox.take(Waker::noop()).queue {
        let mut wire = as_client(&frame.bytes);
        let fed = Inbound::default().feed(&mut wire, 1 << 24, |event| {
            let Event::Message(message) = event else { panic!("{event:?}") };
            seen.extend(Frames::new(message).map(|frame| decode(frame.unwrap()).unwrap().payload.unwrap()));
            std::ops::ControlFlow::Continue(())
        });
        assert!(fed.unwrap().is_continue());
    }
    seen
}

fn acks(peer: &Peer) -> Vec<Ack> {
    read(peer).into_iter().filter_map(|p| if let Payload::Ack(ack) = p { Some(ack) } else { None }).collect()
}

fn texts(peer: &Peer) -> Vec<String> {
    read(peer)
        .into_iter()
        .filter_map(|p| if let Payload::Push(p) = p { Some(p.client_msg_id) } else { None })
        .collect()
}

#[tokio::test]
async fn a_send_that_was_done_unanswered_is_stored_not_a_duplicate() {
    let world = World::new(vec![Fate::Unanswered]);
    let (alice, bob) = (world.peer(1), world.peer(2));
    world.send(&alice, "a");
    world.settled(&alice).await;
    let acks = acks(&alice);
    assert_eq!(
        (acks.len(), acks[0].status(), acks[0].duplicate, acks[0].seq),
        (1, AckStatus::Stored, false, 1)
    );
    assert_eq!(texts(&bob), ["a"]);
}

#[tokio::test]
async fn what_was_given_up_unanswered_is_delivered_when_it_comes_again() {
    let away = usize::try_from(SEND_WAIT.as_millis() / RETRY_PAUSE.as_millis()).unwrap() + 3;
    let mut fates = vec![Fate::Unanswered];
    fates.extend(std::iter::repeat_n(Fate::Lost, away));
    let world = World::new(fates);
    let (alice, bob) = (world.peer(1), world.peer(2));
    world.send(&alice, "a");
    world.settled(&alice).await;
    let given_up = acks(&alice);
    assert_eq!(given_up[0].status(), AckStatus::Failed);
    assert_eq!(given_up[0].error.as_ref().unwrap().code(), ErrorCode::RetryLater);
    assert_eq!(texts(&bob), [""; 0]);
    for _ in 0..2 {
        loop {
            world.send(&alice, "a");
            world.settled(&alice).await;
            let ack = acks(&alice).remove(0);
            if ack.status() == AckStatus::Stored {
                assert!(ack.duplicate && ack.seq == 1);
                break;
            }
        }
    }
    assert_eq!(texts(&bob), ["a"], "once, however often it came");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the store does: every send is answered once; what is stored
    /// is stored in the order it was sent, and delivered once, in order;
    /// nothing overtakes what was given up.
    #[test]
    fn order_is_kept_over_any_failures(
        fates in proptest::collection::vec(
            prop_oneof![Just(Fate::Works), Just(Fate::Lost), Just(Fate::Unanswered)], 0..12),
        sends in 1..40_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(fates);
            let (alice, bob) = (world.peer(1), world.peer(2));
            for n in 0..sends {
                world.send(&alice, &n.to_string());
                if n % 7 == 6 {
                    tokio::task::yield_now().await;
                }
            }
            world.settled(&alice).await;
            let acks = acks(&alice);
            assert_eq!(acks.len(), sends, "one answer each");
            let ids: HashSet<_> = acks.iter().map(|ack| ack.client_msg_id.clone()).collect();
            assert_eq!(ids.len(), sends);
            let mut stored: Vec<(i64, usize)> = acks
                .iter()
                .filter(|ack| ack.status() == AckStatus::Stored)
                .map(|ack| (ack.seq, ack.client_msg_id.parse().unwrap()))
                .collect();
            stored.sort_unstable();
            let order: Vec<usize> = stored.iter().map(|(_, n)| *n).collect();
            assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "arrival order: {order:?}");
            let delivered: Vec<usize> = texts(&bob).iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(delivered, order);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_and_not_delivered_is_in_flight() {
    let world = World::new(vec![Fate::Unanswered, Fate::Works]);
    let sender = world.peer(1);
    world.send(&sender, "one");
    let ports = world.pipeline.ports();
    let stored = || match &ports.store {
        Store::Flaky(store) => store.inner.all(&ConversationId::parse("p2p:1:2").unwrap()),
        _ => Vec::new(),
    };
    while stored().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let ids = stored().iter().map(|push| message_id(&push.server_msg_id)).collect();
    assert_eq!(ports.in_flight.of(&ids), ids, "nobody knows that it is stored");
    world.settled(&sender).await;
    ports.in_flight.landed(ids).await;
    let delivered =
        ports.in_flight.of(&stored().iter().map(|push| message_id(&push.server_msg_id)).collect());
    assert_eq!(delivered.len(), 0);
    world.stop.cancel();
}
