use parking_lot::Mutex;

use super::super::testbed::{Testbed, received, team};
use super::*;
use crate::bus::{Bus, Destination, MemoryBus, MemoryExchange, Receiver};
use crate::hub::{Hub, OutboxLimits};
use crate::pipeline::{Backends, Tuning};
use crate::presence::{Presence, Rules};
use crate::route::{Binding, MemoryRoutes, MemoryTable, ROUTE_TTL, Routes};
use crate::store::{Member, MemoryStore, Store};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId};

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

#[test]
fn only_what_changed_is_told() {
    let group = ConversationId::parse("g:team").unwrap();
    let told = |changed: Changed| {
        let events = events_of(&group, user(7), &changed);
        assert!(events.iter().all(|event| event.user_id == 7 && event.conversation_id == "g:team"));
        events.iter().map(ConversationEvent::change).collect::<Vec<_>>()
    };
    let before = Member { role: Role::Member, since_seq: 3, mute_until: 0 };
    let role = Member { role: Role::Admin, ..before };
    let both = Member { mute_until: 9, ..role };
    assert_eq!(told(Changed::Joined(before)), [ConversationChange::Joined]);
    assert_eq!(told(Changed::Updated { before, after: role }), [ConversationChange::Role]);
    assert_eq!(told(Changed::Updated { before: role, after: both }), [ConversationChange::Muted]);
    assert_eq!(told(Changed::Updated { before, after: both }).len(), 2);
    assert_eq!(told(Changed::Removed), [ConversationChange::Removed]);
    for silent in [Changed::Same, Changed::NotFound, Changed::Blocked] {
        assert!(told(silent).is_empty());
    }
}

#[test]
fn an_event_of_many_is_to_each_about_himself() {
    let told = |user_id, user_ids| {
        let event = ConversationEvent { user_id, ..ConversationEvent::default() };
        let envelope = reply("", Payload::ConversationEvent(event));
        let stamped = |user_id| {
            let event = ConversationEvent { user_id, ..ConversationEvent::default() };
            encode(&Envelope { payload: Some(Payload::ConversationEvent(event)), ..envelope.clone() })
        };
        let membership =
            Membership { user_ids, envelope: envelope.encode_to_vec().into(), ..Membership::default() };
        (event_frame(&membership, user(5)).bytes, stamped(5), stamped(user_id))
    };
    let (of_many, stamped, _) = told(0, vec![4, 5]);
    assert_eq!(of_many, stamped);
    let (of_another, _, as_it_was) = told(4, vec![4]);
    assert_eq!(of_another, as_it_was);
    let (of_the_group, _, as_it_was) = told(0, vec![]);
    assert_eq!(of_the_group, as_it_was);
}

/// A gateway, and what another one gets from it.
struct World {
    ports: Arc<Ports>,
    elsewhere: Routes,
    told: Arc<Mutex<Vec<Membership>>>,
}

impl World {
    fn new() -> Self {
        let gateway = |id| GatewayRef { id: GatewayId::new(id).unwrap(), epoch: Epoch(1) };
        let (own, other) = (gateway("gw-1"), gateway("gw-2"));
        let at = |gateway: &GatewayRef| Destination { gateway: gateway.id.clone(), epoch: gateway.epoch };
        let (exchange, table) = (Arc::new(MemoryExchange::default()), Arc::new(MemoryTable::new(ROUTE_TTL)));
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let hears: Receiver = Arc::new(move |_, item| {
            let Some(Item::Membership(membership)) = item.item else { panic!("{item:?}") };
            heard.lock().push(membership);
        });
        let deaf: Receiver = Arc::new(|_, item| panic!("{item:?}"));
        let _joined = MemoryBus::join(Arc::clone(&exchange), at(&other), hears);
        let backends = Backends {
            presence: Presence::alone(own.clone(), Rules::default()),
            routes: Routes::Memory(MemoryRoutes::new(Arc::clone(&table), own.clone())),
            bus: Bus::Memory(MemoryBus::join(exchange, at(&own), deaf)),
            store: Store::Memory(MemoryStore::new()),
        };
        let hub = Arc::new(Hub::new(OutboxLimits { bytes: 1 << 20, frames: 1_000 }));
        let ports = Ports::new(own, hub, backends, 0, Tuning::for_tests());
        Self { ports: Arc::new(ports), elsewhere: Routes::Memory(MemoryRoutes::new(table, other)), told }
    }

    /// Two devices of each of these users come to the other gateway.
    async fn come(&self, users: &[UserId]) {
        let mut bindings = Vec::new();
        for (conn, user) in (1..).zip(users) {
            for device in ["phone", "laptop"] {
                let device = DeviceId::new(device).unwrap();
                bindings.push(Binding { user: *user, device, conn: ConnId(conn), bound: 0, age: 0 });
            }
        }
        self.elsewhere.bind(&bindings, false).await.unwrap();
    }

    /// What the other gateway was told since the last look: the change, and
    /// about how many.
    fn told(&self) -> Vec<(ConversationChange, usize, bool)> {
        let read = |membership: Membership| {
            let envelope = Envelope::decode(membership.envelope).unwrap();
            let Some(Payload::ConversationEvent(event)) = envelope.payload else { panic!("no event") };
            (event.change(), membership.user_ids.len(), membership.to_members)
        };
        self.told.lock().drain(..).map(read).collect()
    }
}

#[tokio::test]
async fn a_gateway_is_told_once_per_change_or_chunk() {
    use ConversationChange::{Deleted, Joined, Removed};
    let world = World::new();
    let users: Vec<UserId> = (1..=2_500).map(user).collect();
    world.come(&users).await;
    let group = ConversationId::parse("g:team").unwrap();
    let members: Vec<_> = users.iter().map(|user| (*user, Role::Member)).collect();
    for told in [vec![(Joined, 1_000, false), (Joined, 1_000, false), (Joined, 500, false)], vec![]] {
        world.ports.create_group(group.clone(), members.clone(), History::Full).await.unwrap();
        assert_eq!(world.told(), told);
    }
    // Too many to hear of each other: but the one it is about does.
    for told in [vec![(Removed, 1, false)], vec![]] {
        world.ports.remove_member(group.clone(), user(1)).await.unwrap();
        assert_eq!(world.told(), told);
    }
    // A gateway with members online hears of those that are nowhere.
    let gateway = GatewayRef { id: GatewayId::new("gw-2").unwrap(), epoch: Epoch(1) };
    world.ports.store.join(&gateway, &[(group.clone(), user(2))]).await.unwrap();
    world.ports.put_member(group.clone(), user(9_999), MemberChange::default()).await.unwrap();
    assert_eq!(world.told(), [(Joined, 1, false)]);
    for (there, told) in [(true, vec![(Deleted, 0, true)]), (false, vec![])] {
        assert_eq!(world.ports.delete_group(group.clone()).await.unwrap(), there);
        assert_eq!(world.told(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_member_hears_of_it_though_he_could_not_be_looked_up_at_once() {
    let bed = Testbed::new();
    let (here, there) = (bed.gateway("gw-a"), bed.gateway("gw-b"));
    let two = bed.connect(&there, 2).await;
    bed.table.fail(true);
    here.ports.create_group(team(), vec![(user(2), Role::Member)], History::Full).await.unwrap();
    assert!(received(&two).is_empty());
    bed.table.fail(false);
    sleep(Duration::from_secs(2)).await;
    let joined = |payload: &Payload| matches!(payload, Payload::ConversationEvent(event) if event.change() == ConversationChange::Joined);
    assert!(received(&two).iter().any(joined));
}
