//! Which gateways are told, and what a gateway finds when it comes or comes
//! back.

use crate::common::{Client, Gateway, eventually, secs};
use crate::{
    Pair, TEAM, audience, expect_silence, expect_texts, follow, make_team, metric, metric_reaches, pull,
    start_pair,
};
use tidegate::proto::ErrorCode;
use tidegate::proto::envelope::Payload;

const FORGOTTEN: &str = "tidegate_group_interests_forgotten_total";
const PUBLISHED: &str = "tidegate_bus_messages_total{direction=\"out\"}";

#[tokio::test]
async fn nobody_publishes_to_a_gateway_that_was_killed() {
    let Pair { redis, a, mut b } = start_pair().await;
    make_team(&a.http(), &[1, 2]).await;
    let mut one = Client::connect(&a, 1, "phone").await;
    let mut two = Client::connect(&b, 2, "phone").await;
    one.store_text(TEAM, "m-1", "one").await;
    expect_texts(&mut two, &["one"]).await;
    b.kill();
    // Sooner than the lease would end.
    let _: i64 = redis.query(&["DEL", "gateway:gw-b"]).await;
    let _: i64 = redis.query(&["ZREM", "gateways", "gw-b"]).await;
    let mut sent = 1;
    let end = std::time::Instant::now() + secs(10);
    while metric(&a, FORGOTTEN).await == 0 {
        assert!(std::time::Instant::now() < end, "it is still told");
        sent += 1;
        one.store_text(TEAM, &format!("m-{sent}"), "into the void").await;
    }
    let gateways: Vec<String> = redis.query(&["HKEYS", "{c:g:team}:gateways"]).await;
    assert_eq!(gateways, ["gw-a"]);
    // The repeats of the last number end, and nothing follows them.
    tokio::time::sleep(secs(6)).await;
    let published = metric(&a, PUBLISHED).await;
    for _ in 0..5 {
        sent += 1;
        one.store_text(TEAM, &format!("m-{sent}"), "to nobody").await;
    }
    assert_eq!(metric(&a, PUBLISHED).await, published);

    let b = b.restart().await;
    let mut two = Client::connect(&b, 2, "phone").await;
    assert_eq!(two.ready.conversations[0].seq, sent);
    one.store_text(TEAM, "m-end", "back").await;
    assert_eq!(two.expect_push().await.seq, sent + 1);
    assert_eq!(pull(&mut two, 1).await.top_seq, sent + 1);
    assert_eq!(metric(&a, FORGOTTEN).await, 1);
}

/// Registers its first member here, or takes its last one away, while
/// messages flow.
#[tokio::test]
async fn a_gateway_whose_first_member_comes_while_messages_flow_misses_none() {
    let pair = start_pair().await;
    let members: Vec<i64> = (1..=30).collect();
    make_team(&pair.a.http(), &members).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut sent = 0;
    for user in 2..=30 {
        let (mut client, ()) = tokio::join!(Client::connect(&pair.b, user, "phone"), async {
            for _ in 0..8 {
                sent += 1;
                one.send_text(TEAM, &format!("m-{sent}"), "hello").await;
            }
        });
        one.expect_stored(&format!("m-{sent}")).await;
        let at = client.ready.conversations[0].seq;
        assert_eq!(follow(&mut client, at, sent).await, 0, "behind {at}");
        expect_silence(&mut client).await;
        client.close().await;
        // Interest is kept for a while: this is as if it had ended.
        eventually("it has left", secs(5), || async {
            (metric(&pair.b, "tidegate_connections").await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn interest_ends_some_time_after_the_last_member_has_left() {
    let pair = start_pair().await;
    make_team(&pair.a.http(), &[1, 2, 3]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let two = Client::connect(&pair.b, 2, "phone").await;
    assert_eq!(audience(&pair).await, ["gw-a", "gw-b"]);
    two.close().await;
    eventually("gw-b takes its interest back", secs(60), || async {
        (audience(&pair).await == ["gw-a"]).then_some(())
    })
    .await;
    assert_eq!(metric(&pair.b, "tidegate_groups").await, 0);
    one.store_text(TEAM, "m-1", "one").await;
    let mut three = Client::connect(&pair.b, 3, "phone").await;
    one.store_text(TEAM, "m-2", "two").await;
    expect_texts(&mut three, &["two"]).await;
}

async fn up_again(gateway: &Gateway, reconnects: u64) {
    metric_reaches(gateway, "tidegate_redis_reconnects_total", reconnects).await;
    metric_reaches(gateway, "tidegate_redis_up", 1).await;
}

#[tokio::test]
async fn groups_are_gone_with_an_empty_redis_and_those_made_anew_work() {
    let mut pair = start_pair().await;
    make_team(&pair.a.http(), &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    one.store_text(TEAM, "m-1", "one").await;
    expect_texts(&mut two, &["one"]).await;
    pair.redis.stop();
    pair.redis.start_empty().await;
    for gateway in [&pair.a, &pair.b] {
        up_again(gateway, 1).await;
    }
    two.send_text(TEAM, "m-2", "two").await;
    assert_eq!(two.expect_failed("m-2").await, ErrorCode::NotFound);
    make_team(&pair.b.http(), &[1, 2, 3]).await;
    eventually("both are told again", secs(10), || async {
        (audience(&pair).await == ["gw-a", "gw-b"]).then_some(())
    })
    .await;
    for (client, user) in [(&mut one, 1), (&mut two, 2)] {
        crate::expect_event(client, tidegate::proto::ConversationChange::Joined, user).await;
    }
    assert_eq!(two.store_text(TEAM, "m-2", "two").await.seq, 1);
    expect_or_resync(&mut one, 1).await;
    assert_eq!(one.store_text(TEAM, "m-3", "three").await.seq, 2);
    expect_or_resync(&mut two, 2).await;
}

/// The message of this seq is pushed; or, where what the client has was not
/// forgotten before there was another group, it is told that it is of another
/// history, and pulls.
async fn expect_or_resync(client: &mut Client, seq: i64) {
    let pick = |payload: &Payload| match payload {
        Payload::Push(push) => Some(push.seq),
        Payload::Error(error) if error.code() == ErrorCode::ResyncRequired => Some(0),
        _ => None,
    };
    match client.expect("a push, or to resync", pick).await {
        0 => assert_eq!(pull(client, 1).await.top_seq, seq),
        pushed => assert_eq!(pushed, seq),
    }
}

#[tokio::test]
async fn groups_go_on_after_a_redis_that_remembers_was_started_again() {
    let mut pair = start_pair().await;
    make_team(&pair.a.http(), &[1, 2]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    one.store_text(TEAM, "m-1", "one").await;
    expect_texts(&mut two, &["one"]).await;
    let _: String = pair.redis.query(&["SAVE"]).await;
    pair.redis.stop();
    // It reads what it saved.
    pair.redis.start_empty().await;
    for gateway in [&pair.a, &pair.b] {
        up_again(gateway, 1).await;
    }
    assert_eq!(one.store_text(TEAM, "m-2", "two").await.seq, 2);
    expect_texts(&mut two, &["two"]).await;
    assert_eq!(two.store_text(TEAM, "m-3", "three").await.seq, 3);
    expect_texts(&mut one, &["three"]).await;
    for client in [&mut one, &mut two] {
        expect_silence(client).await;
    }
}
