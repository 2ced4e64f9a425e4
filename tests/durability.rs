//! What was acknowledged is there: after a stop, a kill, a full disk; and it
//! was on disk before it was acknowledged.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test says no")]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::payload::text;
use common::{Client, Gateway, Options, SOON, SmallDisk, eventually, secs};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{AckStatus, ErrorCode, Push};

const CHAT: &str = "p2p:42:43";

/// Ids that were acknowledged, and as what.
type Acked = BTreeMap<String, (i64, u64)>;

/// Every second text is long.
fn body(n: usize) -> String {
    "x".repeat(if n.is_multiple_of(2) { 2_000 } else { 20 })
}

/// The text of the message of this number.
type Body = fn(usize) -> String;

/// Sends eight at a time until the connection ends.
async fn send_on(mut client: Client, chat: String, round: usize, body: Body, total: Arc<AtomicU64>) -> Acked {
    let mut acked = Acked::new();
    let (mut sent, mut answered) = (0, 0);
    loop {
        while sent < answered + 8 {
            if !client.try_send(Payload::Send(text(&chat, &format!("{round}-{sent}"), &body(sent)))).await {
                return acked;
            }
            sent += 1;
        }
        let Some(payloads) = client.next().await else { return acked };
        for payload in payloads {
            if let Payload::Ack(ack) = payload
                && ack.status() == AckStatus::Stored
            {
                assert_eq!(ack.level, 2);
                answered += 1;
                total.fetch_add(1, Ordering::Relaxed);
                acked.insert(ack.client_msg_id, (ack.seq, ack.epoch));
            }
        }
    }
}

fn check(messages: &[Push], acked: &Acked) {
    let mut ids = HashSet::new();
    for (place, push) in messages.iter().enumerate() {
        assert_eq!(push.seq, i64::try_from(place).unwrap() + 1, "a hole");
        assert!(ids.insert(&push.client_msg_id), "{} twice", push.client_msg_id);
    }
    for (id, (seq, epoch)) in acked {
        let push = &messages[usize::try_from(*seq).unwrap() - 1];
        assert_eq!((&push.client_msg_id, push.epoch), (id, *epoch), "acknowledged and lost");
    }
}

/// Kills a gateway in the middle of sends, once `enough` were acknowledged, and
/// looks at what it has; so many times.
async fn survive(rounds: usize, enough: u64, body: Body) -> Gateway {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut acked: BTreeMap<i64, Acked> = BTreeMap::new();
    for round in 0..rounds {
        let total = Arc::new(AtomicU64::new(0));
        let mut senders = Vec::new();
        for user in [1, 3, 5, 7, 9] {
            let client = Client::connect(&gateway, user, "phone").await;
            let chat = format!("p2p:{user}:{}", user + 1);
            senders.push((user, tokio::spawn(send_on(client, chat, round, body, Arc::clone(&total)))));
        }
        eventually("enough is acknowledged", secs(60), || async {
            (total.load(Ordering::Relaxed) > enough).then_some(())
        })
        .await;
        gateway.kill();
        for (user, sender) in senders {
            acked.entry(user).or_default().extend(sender.await.unwrap());
        }
        gateway = gateway.restart().await;
        for (user, acked) in &acked {
            let chat = format!("p2p:{user}:{}", user + 1);
            let mut phone = Client::connect(&gateway, *user, "other").await;
            let messages = phone.pull(&chat).await;
            check(&messages, acked);
            // Sent again it is known, also where the answer was lost.
            for n in (0..1_000).filter(|n| messages.iter().any(|push| is(push, round, *n))) {
                let ack = phone.store_text(&chat, &format!("{round}-{n}"), &body(n)).await;
                let original = &messages[usize::try_from(ack.seq).unwrap() - 1];
                assert!(ack.duplicate && is(original, round, n), "{ack:?}");
                assert_eq!(ack.server_msg_id, original.server_msg_id);
            }
        }
    }
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill() {
    survive(4, 1_500, body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_kill_while_tables_are_written_and_merged() {
    // 30 KB each: a table every 8 MiB.
    let gateway = survive(2, 1_200 + fastrand::u64(0..300), |n| "x".repeat(25_000 + n % 10_000)).await;
    let mut tables = 0;
    for space in std::fs::read_dir(gateway.data_dir().join("store/keyspaces")).unwrap() {
        tables += std::fs::read_dir(space.unwrap().path().join("tables")).map_or(0, Iterator::count);
    }
    assert!(tables > 4, "{tables} tables");
}

fn is(push: &Push, round: usize, n: usize) -> bool {
    push.client_msg_id == format!("{round}-{n}")
}

#[tokio::test]
async fn a_stop_and_a_start_lose_nothing_and_a_backup_begins_anew() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let first = phone.store_text(CHAT, "m-1", "one").await;
    assert_eq!(first.level, 2);
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    friend.send(common::payload::receipt(CHAT, 1)).await;
    friend.beat().await;
    gateway.terminate();
    assert!(gateway.exit(secs(20)).await.success());
    assert!(!gateway.log().contains("not closed in time"), "{}", gateway.log());

    let mut gateway = gateway.restart().await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    assert_eq!((friend.ready.conversations[0].seq, friend.ready.conversations[0].read_seq), (1, 1));
    assert!(friend.store_text(CHAT, "f-1", "two").await.epoch == first.epoch);
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    assert!(phone.store_text(CHAT, "m-1", "one").await.duplicate);
    gateway.terminate();
    gateway.exit(secs(20)).await;

    let gateway = gateway.restart_as(Options::new().argument("--restored")).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let anew = phone.store_text(CHAT, "m-2", "three").await;
    assert!(anew.seq == 3 && anew.epoch > first.epoch, "{anew:?}");
}

#[tokio::test]
async fn a_full_disk_costs_retry_later_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else { return };
    let gateway =
        Gateway::start(Options::new().data_dir(disk.path()).env("TIDEGATE_LIMITS_SEND_WAIT", "500ms")).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut acked = Acked::new();
    for round in 0..3 {
        for n in 0..20 {
            let id = format!("{round}-{n}");
            let ack = phone.store_text(CHAT, &id, "x").await;
            acked.insert(id, (ack.seq, ack.epoch));
        }
        let mut refused = Vec::new();
        for n in 0..50 {
            // Opening its files again, the store may find a little room.
            disk.fill();
            let id = format!("full-{round}-{n}");
            phone.send_text(CHAT, &id, &"y".repeat(30_000)).await;
            let ack = phone.expect_ack(&id).await;
            if ack.status() == AckStatus::Stored {
                acked.insert(id, (ack.seq, ack.epoch));
                continue;
            }
            assert_eq!(ack.error.unwrap().code(), ErrorCode::RetryLater);
            refused.push(id);
            if refused.len() == 2 {
                break;
            }
        }
        assert_eq!(refused.len(), 2, "the disk is full");
        phone.beat().await;
        disk.empty();
        eventually("it works again", SOON, || async {
            let mut probe = Client::connect(&gateway, 44, "phone").await;
            probe.send_text("p2p:44:45", &format!("probe-{round}"), "x").await;
            let ack = probe.expect_ack(&format!("probe-{round}")).await;
            (ack.status() == AckStatus::Stored).then_some(())
        })
        .await;
        for id in refused {
            let ack = phone.insist(CHAT, &id, &"y".repeat(30_000)).await;
            acked.insert(id, (ack.seq, ack.epoch));
        }
        check(&phone.pull(CHAT).await, &acked);
    }
    assert!(gateway.log().contains("the disk failed"), "{}", gateway.log());
    assert!(gateway.log().contains("the disk is written again"), "{}", gateway.log());
    let gateway = gateway.restart().await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    check(&phone.pull(CHAT).await, &acked);
}
