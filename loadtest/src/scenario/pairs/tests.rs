//! What became of messages is judged, whoever is at fault.

use super::*;
use crate::history::How;

const NONCE: &str = "n";

/// One pair, `sent` messages on their way.
fn talking(sent: u32) -> Pairs {
    let plan = Plan { pairs: 1, size: 4, confirm: false };
    let mut pairs = Pairs::new(plan, NONCE, 1, 2).unwrap();
    let mut swarm = Swarm::new().unwrap();
    pairs.send(&mut swarm, 0, Instant::now(), sent).unwrap();
    pairs
}

fn id(message: u32) -> String {
    format!("{NONCE}-{message:010}")
}

fn stored(pairs: &mut Pairs, message: u32, seq: i64) {
    let id = id(message);
    let ack = Ack { client_msg_id: id.as_bytes(), seq, status: Ack::STORED, ..Ack::default() };
    pairs.answered(0, Instant::now(), &ack);
}

fn refused(pairs: &mut Pairs, message: u32) {
    let id = id(message);
    let ack = Ack { client_msg_id: id.as_bytes(), status: Ack::FAILED, error: 6, ..Ack::default() };
    pairs.answered(0, Instant::now(), &ack);
}

fn arrived(pairs: &mut Pairs, message: u32, seq: i64) {
    let id = id(message);
    pairs.arrived(1, Instant::now(), &Push { client_msg_id: id.as_bytes(), seq, ..Push::default() });
}

fn problems(mut pairs: Pairs) -> Vec<String> {
    let mut round = Round::default();
    pairs.judge(&mut round);
    round.problems
}

#[test]
fn kept_when_all_that_is_stored_arrives_in_order() {
    let mut pairs = talking(4);
    stored(&mut pairs, 0, 1);
    arrived(&mut pairs, 0, 1);
    arrived(&mut pairs, 1, 2);
    stored(&mut pairs, 1, 2);
    refused(&mut pairs, 2);
    stored(&mut pairs, 3, 3);
    arrived(&mut pairs, 3, 3);
    arrived(&mut pairs, 3, 3);
    assert_eq!((pairs.acked(), pairs.delivered(), pairs.counts.doubled), (3, 3, 1));
    assert_eq!(problems(pairs), Vec::<String>::new());
}

#[test]
fn what_is_lost_or_unanswered_is_told() {
    let mut pairs = talking(2);
    stored(&mut pairs, 0, 1);
    assert_eq!(problems(pairs), ["1 stored messages were not delivered", "1 sends were not answered"]);
}

#[test]
fn another_order_and_another_seq_are_told() {
    let mut pairs = talking(3);
    (0..3).for_each(|message| stored(&mut pairs, message, i64::from(message) + 1));
    arrived(&mut pairs, 1, 2);
    arrived(&mut pairs, 0, 1);
    arrived(&mut pairs, 2, 4);
    assert_eq!(
        problems(pairs),
        ["1 messages came out of order", "1 messages came with another seq than acknowledged"]
    );
}

#[test]
fn the_witness_hears_what_the_pair_hears() {
    let mut pairs = talking(1);
    let witness = pairs.witness.as_mut().unwrap();
    let id = id(0);
    let push = Push { conversation: b"p2p:1:2", client_msg_id: id.as_bytes(), seq: 1, ..Push::default() };
    witness.told(1, Instant::now(), &Told::Said(Seen::Push(push, How::Live)));
    witness.told(7, Instant::now(), &Told::Said(Seen::Ready));
    assert_eq!(witness.heard(), [1, 1], "one was sent, one received, and a stranger is not watched");
}
