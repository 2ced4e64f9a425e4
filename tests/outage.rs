//! What fails around a gateway: its neighbour, itself, Redis. No socket pays
//! for it that did not have to.

mod common;

use std::time::Instant;

use common::payload::text_of;
use common::{Client, Gateway, Http, Options, Redis, eventually, secs};
use tidegate::proto::ErrorCode;
use tidegate::proto::envelope::Payload;
use tokio::time::interval;

const CHAT: &str = "p2p:42:43";

/// A lease lives for 15 s after its holder.
const LEASE: std::time::Duration = secs(15);

async fn pair(redis: &Redis) -> (Gateway, Gateway) {
    tokio::join!(
        Gateway::start(Options::cluster(redis, "gw-a")),
        Gateway::start(Options::cluster(redis, "gw-b"))
    )
}

/// Whether the admin interface says that `user` is reachable through `gateway`.
async fn is_routed(http: &Http, user: i64, gateway: &str) -> bool {
    let reply = http.get(&format!("/v1/users/{user}/route")).await;
    assert!(reply.status.is_success() || reply.status == 404, "{reply:?}");
    reply.text().contains(&format!("\"{gateway}\""))
}

async fn readiness_becomes(http: &Http, status: u16, deadline: std::time::Duration) {
    eventually(&format!("/readyz says {status}"), deadline, || async {
        (http.try_status("/readyz").await == Some(status)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_users_of_a_dead_gateway_are_no_longer_routed_to_it() {
    let redis = Redis::start().await;
    let (mut a, b) = pair(&redis).await;
    let phone = Client::connect(&a, 42, "phone").await;
    let mut friend = Client::connect(&b, 43, "phone").await;
    assert!(is_routed(&b.http(), 42, "gw-a").await);
    a.kill();
    drop(phone);
    let http = b.http();
    eventually("gw-a is no longer listed", LEASE + secs(5), || async {
        (!is_routed(&http, 42, "gw-a").await).then_some(())
    })
    .await;
    // Nothing is lost for those who are away, and they may come back elsewhere.
    friend.store_text(CHAT, "m-1", "are you there?").await;
    let mut phone = Client::connect(&b, 42, "phone").await;
    assert_eq!(phone.ready.conversations.first().map(|top| top.seq), Some(1));
    friend.store_text(CHAT, "m-2", "welcome back").await;
    assert_eq!(text_of(&phone.expect_push().await), "welcome back");
}

#[tokio::test]
async fn a_device_of_a_dead_gateway_moves_at_once() {
    let redis = Redis::start().await;
    let (mut a, b) = pair(&redis).await;
    let phone = Client::connect(&a, 42, "phone").await;
    let mut friend = Client::connect(&b, 43, "phone").await;
    a.kill();
    drop(phone);
    let mut phone = Client::connect(&b, 42, "phone").await;
    friend.store_text(CHAT, "m-1", "that was quick").await;
    assert_eq!(text_of(&phone.expect_push().await), "that was quick");
}

#[tokio::test]
async fn a_killed_gateway_comes_back_under_its_name() {
    let redis = Redis::start().await;
    let (a, b) = pair(&redis).await;
    let epoch = a.epoch;
    let mut friend = Client::connect(&b, 43, "phone").await;
    drop(Client::connect(&a, 42, "phone").await);
    let start = Instant::now();
    let a = a.restart().await;
    assert!(start.elapsed() < secs(25), "{:?}", start.elapsed());
    assert_eq!(a.id, "gw-a");
    assert_ne!(a.epoch, epoch, "a cold start draws a new epoch");
    let mut phone = Client::connect(&a, 42, "phone").await;
    friend.store_text(CHAT, "m-1", "back again").await;
    assert_eq!(text_of(&phone.expect_push().await), "back again");
    phone.store_text(CHAT, "m-2", "yes").await;
    assert_eq!(text_of(&friend.expect_push().await), "yes");
}

#[tokio::test]
async fn a_name_in_use_is_refused_and_its_holder_named() {
    let redis = Redis::start().await;
    let holder = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut phone = Client::connect(&holder, 42, "phone").await;
    let (status, log) = Gateway::refusal(Options::cluster(&redis, "gw-a"), secs(30)).await;
    assert!(!status.success());
    let traits = [
        holder.listen.to_string(),
        holder.admin.to_string(),
        holder.epoch.to_string(),
        holder.process_id().to_string(),
    ];
    assert!(
        log.contains("gw-a") && traits.iter().any(|known| log.contains(known)),
        "nobody is named in:\n{log}"
    );
    phone.beat().await;
    assert_eq!(holder.http().try_status("/readyz").await, Some(200));
}

#[tokio::test]
async fn a_redis_that_is_away_and_comes_back_empty_closes_no_socket() {
    let mut redis = Redis::start().await;
    let (a, b) = pair(&redis).await;
    let mut alice = Client::connect(&a, 42, "phone").await;
    let mut bob = Client::connect(&b, 43, "phone").await;
    let before = alice.store_text(CHAT, "m-1", "before").await;
    bob.expect_push().await;

    redis.stop();
    let mut ticks = interval(secs(1));
    for second in 0..20 {
        ticks.tick().await;
        alice.beat().await;
        bob.beat().await;
        if second % 5 == 1 {
            let id = format!("lost-{second}");
            let start = Instant::now();
            alice.send_text(CHAT, &id, "during").await;
            assert_eq!(alice.expect_failed(&id).await, ErrorCode::RetryLater);
            assert!(start.elapsed() < secs(3), "{:?}", start.elapsed());
        }
    }
    redis.start_empty().await;

    for (user, gateway) in [("route:42", "gw-a"), ("route:43", "gw-b")] {
        eventually(&format!("{user} is {gateway} again"), secs(20), || async {
            (redis.query::<Option<String>>(&["GET", user]).await.as_deref() == Some(gateway)).then_some(())
        })
        .await;
    }
    for http in [a.http(), b.http()] {
        readiness_becomes(&http, 200, secs(15)).await;
    }
    let after = alice.insist(CHAT, "m-2", "after").await;
    assert!(after.epoch > before.epoch, "a history that was lost kept its epoch");
    bob.expect("the message, or word that the history is another", |payload| match payload {
        Payload::Push(push) if push.server_msg_id == after.server_msg_id => Some(()),
        Payload::Error(error)
            if error.code() == ErrorCode::ResyncRequired && error.conversation_id == CHAT =>
        {
            Some(())
        }
        _ => None,
    })
    .await;
    // A conversation without a past needs no such word.
    bob.store_text("p2p:42:43", "m-3", "news").await;
    let mut carol = Client::connect(&b, 44, "phone").await;
    alice.store_text("p2p:42:44", "m-4", "fresh").await;
    assert_eq!(text_of(&carol.expect_push().await), "fresh");
    carol.store_text("p2p:42:44", "m-5", "thanks").await;
    alice
        .expect("the answer", |payload| match payload {
            Payload::Push(push) if push.client_msg_id == "m-5" => Some(()),
            _ => None,
        })
        .await;
}

/// Sends under one id until it is stored: what a client does on RETRY_LATER.
#[tokio::test]
async fn readiness_follows_a_redis_that_hangs() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let http = gateway.http();
    redis.pause();
    readiness_becomes(&http, 503, secs(5)).await;
    assert_eq!(http.try_status("/livez").await, Some(200));
    phone.beat().await;
    phone.send_text(CHAT, "m-1", "x").await;
    assert_eq!(phone.expect_failed("m-1").await, ErrorCode::RetryLater);
    redis.resume();
    readiness_becomes(&http, 200, secs(15)).await;
    phone.insist(CHAT, "m-1", "x").await;
}

#[tokio::test]
async fn without_redis_at_start_a_gateway_waits_for_it() {
    let mut redis = Redis::start().await;
    redis.stop();
    let starting = Gateway::start(Options::cluster(&redis, "gw-a"));
    let coming = async {
        tokio::time::sleep(secs(3)).await;
        redis.start_empty().await;
    };
    let (gateway, ()) = tokio::join!(starting, coming);
    Client::connect(&gateway, 42, "phone").await.beat().await;
}
