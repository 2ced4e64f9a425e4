//! Everything moves.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tidegate::proto::envelope::Payload;

use crate::common::payload::{delivered, typing};
use crate::common::raw::Raw;
use crate::common::{Client, Gateway, Options, Redis, eventually, secs};
use crate::patient;
use crate::talker::{Talker, check, connected};

const USERS: i64 = 200;

pub(crate) async fn talkers(gateway: &Gateway, users: i64, pause: Duration) -> Vec<Talker> {
    let mut streams = Vec::new();
    for user in 1..=users {
        streams.push((user, connected(gateway.listen, user).await));
    }
    let other = |user| if user % 2 == 1 { user + 1 } else { user - 1 };
    streams.into_iter().map(|(user, stream)| Talker::start(stream, user, other(user), pause)).collect()
}

/// Waits until each has been answered so often again.
pub(crate) async fn everybody_goes_on(talkers: &[Talker], times: u64) {
    let before: Vec<u64> = talkers.iter().map(Talker::count).collect();
    eventually("everybody is answered", secs(60), || async {
        talkers.iter().zip(&before).all(|(talker, before)| talker.count() >= before + times).then_some(())
    })
    .await;
}

/// Hushes all, waits for the last words, and checks each pair.
pub(crate) async fn settle(talkers: Vec<Talker>) -> u64 {
    talkers.iter().for_each(Talker::hush);
    eventually("the last words", secs(60), || async {
        let has_heard = |a: &Talker, b: &Talker| a.is_answered() && b.heard() >= a.count();
        talkers
            .chunks(2)
            .all(|pair| has_heard(&pair[0], &pair[1]) && has_heard(&pair[1], &pair[0]))
            .then_some(())
    })
    .await;
    let mut all = Vec::new();
    for talker in talkers {
        let user = talker.user;
        let (sent, heard) = talker.finish().await;
        all.push((user, sent, heard));
    }
    for pair in all.chunks(2) {
        let [(a, sent_a, heard_a), (b, sent_b, heard_b)] = pair else { panic!("pairs") };
        check((*a, *sent_a, heard_a), (*b, *sent_b, heard_b));
    }
    all.iter().map(|(_, sent, _)| sent).sum()
}

async fn three_upgrades(options: Options) {
    let mut gateway = Gateway::start(patient(options)).await;
    let epoch = gateway.http().get("/v1/status").await.json()["epoch"].clone();
    let talkers = talkers(&gateway, USERS, Duration::from_millis(40)).await;
    let mut pids = vec![gateway.process_id()];
    for n in 0..3 {
        everybody_goes_on(&talkers, 3).await;
        let report = gateway.upgrade().await;
        println!("upgrade {n}: {report}");
        assert_eq!(report["moved"], USERS, "{report}");
        assert_eq!(report["drained"], 0, "{report}");
        pids.push(gateway.process_id());
    }
    everybody_goes_on(&talkers, 3).await;
    pids.dedup();
    assert_eq!(pids.len(), 4, "{pids:?}");
    let status = gateway.http().get("/v1/status").await.json();
    assert_eq!((&status["epoch"], &status["connections"]), (&epoch, &USERS.into()));
    assert_eq!(status["pid"], gateway.process_id());
    let sent = settle(talkers).await;
    println!("{sent} messages");
    let metrics = gateway.http().get("/metrics").await.text();
    let stored = metrics.lines().find_map(|line| line.strip_prefix("tidegate_messages_stored_total "));
    assert_eq!(stored, Some(sent.to_string().as_str()), "counters go on");
    assert!(!gateway.log().contains("ERROR"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_talk_through_three_upgrades_on_the_embedded_store() {
    three_upgrades(Options::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_talk_through_three_upgrades_on_redis() {
    let redis = Redis::start().await;
    three_upgrades(Options::cluster(&redis, "gw-1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_end_is_asked_to_come_back() {
    let mut gateway = Gateway::start(patient(Options::new())).await;
    let talkers = talkers(&gateway, 10, Duration::from_millis(20)).await;
    everybody_goes_on(&talkers, 2).await;
    let mut half = Raw::connect(&gateway).await;
    half.write(b"GET /ws?user=99 HTTP/1.1\r\n").await;
    eventually("it is accepted", secs(30), || async {
        let metrics = gateway.http().get("/metrics").await.text();
        metrics.contains("tidegate_connections_accepted_total 11").then_some(())
    })
    .await;
    let answer = tokio::spawn(async move { half.head().await });
    let report = gateway.upgrade().await;
    assert_eq!(report["moved"], 10, "{report}");
    let head = answer.await.unwrap();
    assert_eq!((head.status, head.header("Retry-After")), (503, "1"));
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}

/// What is asked of a gateway with groups, before and after.
async fn groups_go_on(options: Options) {
    let mut gateway = Gateway::start(patient(options)).await;
    let body = json!({"id": "g:team", "members": [1, 2, 3]});
    gateway.http().post("/v1/conversations", &body).await.success();
    let mut members = Vec::new();
    for user in 1..=3 {
        members.push(Client::connect(&gateway, user, "phone").await);
    }
    for round in 0..3 {
        let id = format!("m-{round}");
        let seq = members[0].store_text("g:team", &id, "hello").await.seq;
        for member in &mut members[1..] {
            let push = member.expect_push().await;
            assert_eq!((push.client_msg_id.as_str(), push.seq), (id.as_str(), seq));
            member.send(delivered("g:team", seq)).await;
        }
        members[0].expect_delivered("g:team", seq).await;
        // Only members may; and only those who are known here are told.
        members[1].send(typing("g:team", true)).await;
        let pick = |payload: &Payload| {
            matches!(payload, Payload::Typing(typing) if typing.by_user_id == 2).then_some(())
        };
        members[2].expect("typing", pick).await;
        members[0].expect("typing", pick).await;
        let report = gateway.upgrade().await;
        assert_eq!(report["moved"], 3, "{report}");
    }
    let gone = gateway.http().send(Method::DELETE, "/v1/conversations/g:team/members/3", Bytes::new()).await;
    gone.success();
    members[0].store_text("g:team", "last", "without 3").await;
    assert_eq!(members[1].expect_push().await.client_msg_id, "last");
    members[2].beat().await;
    let pushed = members[2].drain().into_iter().any(|payload| matches!(payload, Payload::Push(_)));
    assert!(!pushed, "who is out gets nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_go_on_on_the_embedded_store() {
    groups_go_on(Options::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_go_on_on_redis() {
    let redis = Redis::start().await;
    groups_go_on(Options::cluster(&redis, "gw-1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_of_the_first_process_is_not_asked_of_the_next() {
    let mut gateway = Gateway::start(Options::new().argument("--restored")).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let before = phone.store_text("p2p:42:43", "m-1", "before").await;
    gateway.upgrade().await;
    let after = phone.store_text("p2p:42:43", "m-2", "after").await;
    assert_eq!((after.epoch, after.seq), (before.epoch, before.seq + 1));
    assert!(phone.store_text("p2p:42:43", "m-1", "before").await.duplicate);
}
