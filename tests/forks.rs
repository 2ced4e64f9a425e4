//! A store that has lost messages it once acknowledged: whoever had them is
//! told, and nobody else is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod common;

use common::payload::{frame, text, text_of};
use common::{Client, Gateway, Options, Redis, eventually, secs};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Ack, AckStatus, Error, ErrorCode, Identify, Position, SyncReq};

const LOST: &str = "p2p:42:43";
const KEPT: &str = "p2p:44:45";

/// Two gateways, and a user of each conversation on either.
struct Cluster {
    a: Gateway,
    b: Gateway,
    alice: Client,
    bob: Client,
    carol: Client,
    dave: Client,
}

impl Cluster {
    async fn start(redis: &Redis) -> Self {
        let (a, b) = tokio::join!(
            Gateway::start(Options::cluster(redis, "gw-a")),
            Gateway::start(Options::cluster(redis, "gw-b"))
        );
        let alice = Client::connect(&a, 42, "phone").await;
        let bob = Client::connect(&b, 43, "phone").await;
        let carol = Client::connect(&a, 44, "phone").await;
        let dave = Client::connect(&b, 45, "phone").await;
        Self { a, b, alice, bob, carol, dave }
    }

    /// One message in each conversation, which its receiver has.
    async fn talk(&mut self, id: &str) -> (Ack, Ack) {
        let lost = self.alice.store_text(LOST, id, id).await;
        let kept = self.carol.store_text(KEPT, id, id).await;
        for (client, seq) in [(&mut self.bob, lost.seq), (&mut self.dave, kept.seq)] {
            let push = client.expect_push().await;
            assert_eq!((push.seq, text_of(&push)), (seq, id));
        }
        (lost, kept)
    }

    async fn raised(&self) -> u64 {
        let mut sum = 0;
        for gateway in [&self.a, &self.b] {
            let text = gateway.http().get("/metrics").await.success().text();
            let value =
                text.lines().find_map(|l| l.strip_prefix("tidegate_conversation_epochs_raised_total "));
            sum += value.unwrap().parse::<u64>().unwrap();
        }
        sum
    }

    /// Nobody is told that his history is another one.
    async fn nobody_was_told(&mut self) {
        for client in [&mut self.alice, &mut self.bob, &mut self.carol, &mut self.dave] {
            client.beat().await;
            let told = client.drain().into_iter().filter(|payload| matches!(payload, Payload::Error(_)));
            assert_eq!(told.collect::<Vec<_>>(), []);
        }
    }
}

/// Waits for a RESYNC_REQUIRED; returns where the conversation stands.
async fn expect_resync(client: &mut Client, conversation: &str) -> Position {
    let error: Error = common::within("a resync", secs(20), client.expect_error()).await;
    assert_eq!((error.code(), error.conversation_id.as_str()), (ErrorCode::ResyncRequired, conversation));
    error.current.expect("where it stands")
}

async fn resume(gateway: &Gateway, user: i64, conversation: &str, last: &Ack) -> Client {
    let mut client = Client::open(gateway, &format!("/ws?user={user}&device=tablet&resume=1")).await;
    let position = Position {
        conversation_id: conversation.to_owned(),
        epoch: last.epoch,
        seq: last.seq,
        server_msg_id: last.server_msg_id.clone(),
        ..Position::default()
    };
    client.send(Payload::Identify(Identify { have: vec![position], ..Identify::default() })).await;
    client.expect_ready().await;
    client
}

async fn replayed(client: &mut Client) -> Vec<i64> {
    client
        .expect("a replay", |payload| match payload {
            Payload::PushBatch(batch) if batch.replay => Some(batch.messages.iter().map(|m| m.seq).collect()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn where_a_replica_lacked_messages_those_who_had_them_are_told() {
    let mut redis = Redis::start().await;
    let mut replica = redis.replica().await;
    let mut all = Cluster::start(&redis).await;
    let mut kept = None;
    for n in 1..=3 {
        kept = Some(all.talk(&format!("m-{n}")).await);
    }
    let (last_kept, of_others) = kept.unwrap();
    eventually("the replica has them", secs(10), || async {
        (replica.query::<i64>(&["XLEN", "{c:p2p:44:45}:log"]).await == 3).then_some(())
    })
    .await;
    replica.lag().await;
    let mut lost = last_kept.clone();
    for n in 4..=5 {
        lost = all.alice.store_text(LOST, &format!("m-{n}"), "lost").await;
        all.bob.expect_push().await;
    }
    replica.replace(&mut redis).await;

    // The sender of what is lost had it as well as its receiver.
    for client in [&mut all.alice, &mut all.bob] {
        let current = expect_resync(client, LOST).await;
        assert_eq!((current.seq, &current.server_msg_id), (3, &last_kept.server_msg_id));
    }
    // Its seqs are used again, in an epoch of their own.
    let again = all.alice.insist(LOST, "m-6", "m-6").await;
    assert_eq!(again.seq, 4);
    assert!(again.epoch > lost.epoch);
    assert_eq!(all.bob.expect_push().await.seq, 4);
    all.alice.insist(LOST, "m-7", "m-7").await;
    assert_eq!(all.bob.expect_push().await.seq, 5);
    let other = all.carol.insist(KEPT, "m-6", "m-6").await;
    assert!(other.seq == 4 && other.epoch > of_others.epoch);
    assert_eq!(all.dave.expect_push().await.seq, 4);
    all.nobody_was_told().await;
    assert_eq!(all.raised().await, 2, "once per conversation");

    // Who comes back with a lost message is told, too; its seq is another's.
    let mut tablet = resume(&all.a, 43, LOST, &lost).await;
    assert_eq!(expect_resync(&mut tablet, LOST).await.seq, 5);
    let proof = SyncReq {
        request_id: "r".to_owned(),
        conversation_id: LOST.to_owned(),
        from_seq: lost.seq + 1,
        epoch: lost.epoch,
        server_msg_id: lost.server_msg_id.clone(),
        ..SyncReq::default()
    };
    tablet.send(Payload::Sync(proof.clone())).await;
    let error = tablet.expect_error().await;
    assert_eq!((error.code(), error.ref_request_id.as_str()), (ErrorCode::ResyncRequired, "r"));
    let (from_seq, server_msg_id) = (4, last_kept.server_msg_id.clone());
    let range = tablet.sync(SyncReq { from_seq, server_msg_id, ..proof }).await;
    assert_eq!(range.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [4, 5]);
    // One with a message that is still there is not, whatever its epoch was.
    let mut tablet = resume(&all.b, 43, LOST, &last_kept).await;
    assert_eq!(replayed(&mut tablet).await, [4, 5]);
}

#[tokio::test]
async fn seqs_that_are_used_again_at_once_are_told_apart() {
    let mut redis = Redis::start().await;
    let mut replica = redis.replica().await;
    let mut all = Cluster::start(&redis).await;
    all.talk("m-1").await;
    eventually("the replica has them", secs(10), || async {
        (replica.query::<i64>(&["XLEN", "{c:p2p:44:45}:log"]).await == 1).then_some(())
    })
    .await;
    replica.lag().await;
    let lost = all.alice.store_text(LOST, "m-2", "lost").await;
    all.bob.expect_push().await;
    // Already on its way when the other history begins.
    redis.pause();
    all.alice.send_text(LOST, "m-3", "m-3").await;
    replica.replace(&mut redis).await;
    let ack = all.alice.expect_ack("m-3").await;
    let again =
        if ack.status() == AckStatus::Stored { ack } else { all.alice.insist(LOST, "m-3", "m-3").await };
    assert_eq!((again.seq, lost.seq), (2, 2));
    for client in [&mut all.alice, &mut all.bob] {
        let current = expect_resync(client, LOST).await;
        assert!(current.seq <= 2);
        // Goes on behind that.
        let pulled = client.pull_from(LOST, 1).await;
        assert_eq!(pulled.last().map(|push| push.server_msg_id.clone()), Some(again.server_msg_id.clone()));
    }
    all.bob.drain();
    all.alice.insist(LOST, "m-4", "m-4").await;
    assert_eq!(all.bob.expect_push().await.seq, 3);
    all.nobody_was_told().await;
}

#[tokio::test]
async fn a_restart_that_loses_nothing_makes_nobody_resync() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let mut all = Cluster::start(&redis).await;
    for n in 1..=5 {
        all.talk(&format!("m-{n}")).await;
    }
    let (last, _) = all.talk("m-6").await;
    redis.stop();
    redis.start_again().await;
    let next = all.alice.insist(LOST, "m-7", "m-7").await;
    assert!(next.seq == 7 && next.epoch > last.epoch, "what may have been is told by the epoch");
    assert_eq!(all.bob.expect_push().await.seq, 7);
    all.carol.insist(KEPT, "m-7", "m-7").await;
    assert_eq!(all.dave.expect_push().await.seq, 7);
    let mut tablet = resume(&all.a, 43, LOST, &last).await;
    assert_eq!(replayed(&mut tablet).await, [7]);
    all.talk("m-8").await;
    assert_eq!(tablet.expect_push().await.seq, 8);
    all.nobody_was_told().await;
    assert_eq!(all.raised().await, 2);
}

#[tokio::test]
async fn a_wiped_store_begins_anew_for_all() {
    let mut redis = Redis::start().await;
    let mut all = Cluster::start(&redis).await;
    let (old, _) = all.talk("m-1").await;
    all.talk("m-2").await;
    redis.stop();
    redis.start_again().await;
    let first = all.alice.insist(LOST, "m-3", "m-3").await;
    assert!(first.seq == 1 && first.epoch > old.epoch);
    for client in [&mut all.alice, &mut all.bob] {
        assert!(expect_resync(client, LOST).await.seq <= 1);
    }
    let pushed = all.bob.pull_from(LOST, 1).await;
    assert_eq!(pushed.iter().map(|push| push.seq).collect::<Vec<_>>(), [1]);
    all.bob.drain();
    all.alice.insist(LOST, "m-4", "m-4").await;
    assert_eq!(all.bob.expect_push().await.seq, 2);
    let mut tablet = resume(&all.b, 43, LOST, &old).await;
    assert_eq!(expect_resync(&mut tablet, LOST).await.seq, 2);
}

#[tokio::test]
async fn two_gateways_write_one_conversation_and_a_third_device_reads_it_in_order() {
    // Together no more than is filled in where one gateway lags behind.
    const EACH: usize = 240;
    let redis = Redis::start().await;
    let mut all = Cluster::start(&redis).await;
    let mut tablet = Client::connect(&all.b, 42, "tablet").await;
    let send = |who: &'static str| {
        (0..EACH).map(move |n| frame(Payload::Send(text(LOST, &format!("{who}-{n}"), who))))
    };
    let (alice, bob) = (&mut all.alice, &mut all.bob);
    tokio::join!(
        async {
            for frame in send("alice") {
                alice.send_raw(frame).await;
            }
        },
        async {
            for frame in send("bob") {
                bob.send_raw(frame).await;
            }
        },
        async {
            for seq in 1..=2 * EACH {
                assert_eq!(tablet.expect_push().await.seq, i64::try_from(seq).unwrap());
            }
        }
    );
    tablet.beat().await;
    assert_eq!(tablet.drain(), [], "each once");
    // And each of the two has the other's, in order.
    for (client, other) in [(&mut all.alice, "bob"), (&mut all.bob, "alice")] {
        let mut last = 0;
        for n in 0..EACH {
            let push = client.expect_push().await;
            assert_eq!(push.client_msg_id, format!("{other}-{n}"));
            assert!(push.seq > last);
            last = push.seq;
        }
    }
}
