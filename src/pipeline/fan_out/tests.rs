use std::io::Read;
use std::net::{TcpListener, TcpStream as StdStream};

use allocation_counter::measure;
use tokio::net::TcpStream;

use super::super::testbed::{Testbed, pushed, team, user};
use super::*;
use crate::hub::Frame;
use crate::message::Mark;

/// A group with so many members here, each at the other end of a socket.
async fn crowd(bed: &Testbed, members: i64) -> (Arc<Ports>, Arc<Room>, Vec<StdStream>) {
    let gateway = bed.gateway(&format!("gw-{members}"));
    let ids: Vec<i64> = (1..=members).collect();
    bed.make_team(&ids);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for id in &ids {
        let peer = bed.connect(&gateway, *id).await;
        let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = TcpStream::from_std(server).unwrap();
        server.writable().await.unwrap();
        peer.outbox.attach(Arc::new(server));
        clients.push(client);
    }
    let users: Vec<_> = ids.iter().map(|id| user(*id)).collect();
    gateway.ports.look_up_members(&team(), &users).await;
    let room = gateway.ports.hub.rooms.get(&team()).unwrap();
    (gateway.ports, room, clients)
}

fn message(seq: i64) -> [Held; 1] {
    let mark = Mark { conversation: team(), epoch: 7, seq, id: seq };
    [Held { frame: Frame::copy(vec![b'x'; 100].into(), Arc::new(mark)), except: None, mver: 0 }]
}

#[tokio::test]
async fn a_recipient_costs_no_allocation() {
    let mut counts = Vec::new();
    for members in [8, 72] {
        let (ports, room, mut clients) = crowd(&Testbed::new(), members).await;
        for seat in room.seats_at(0, &ports.hub).unwrap().iter() {
            seat.peers()[0].outbox.enter(&team(), 7, 0, 0);
        }
        let offer = |messages: &[Held]| ports.offer_to_room(&room, messages);
        let everybody = u64::try_from(members).unwrap();
        assert_eq!(offer(&message(1)), everybody, "the first one looks them up");
        let second = message(2);
        let info = measure(|| assert_eq!(offer(&second), everybody));
        counts.push(info.count_total);
        for client in &mut clients {
            client.read_exact(&mut [0; 200]).unwrap();
        }
    }
    assert_eq!(counts[0], counts[1], "allocations of one message to 8 and to 72 members");
}

#[tokio::test]
async fn whoever_comes_and_goes_is_seen_by_the_next_message() {
    let bed = Testbed::new();
    let gateway = bed.gateway("gw");
    bed.make_team(&[1, 2]);
    let ports = &gateway.ports;
    let first = bed.connect(&gateway, 2).await;
    ports.look_up_members(&team(), &[user(2)]).await;
    gateway.say(&bed, 1).await;
    assert_eq!(pushed(&first), [1]);
    // Another device of his is there before his groups are looked up for it.
    let second = bed.arrive(&gateway, 2).await;
    gateway.say(&bed, 2).await;
    assert_eq!((pushed(&first), pushed(&second)), (vec![2], vec![2]));
    ports.hub.remove(&first);
    gateway.say(&bed, 3).await;
    assert_eq!((pushed(&first), pushed(&second)), (vec![], vec![3]));
}
