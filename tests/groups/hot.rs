//! Groups too large or too busy for every copy to be pushed.

use futures_util::future::join_all;
use tidegate::proto::ConversationHint;
use tidegate::proto::envelope::Payload;

use crate::common::{Client, Gateway};
use crate::{Pair, TEAM, expect_silence, follow, make_team, metric, pull};

const SPREAD_MS: u32 = 400;
const TAIL: &str = "tidegate_pulls_total{source=\"tail\"}";
const STORE: &str = "tidegate_pulls_total{source=\"store\"}";

async fn expect_hint(client: &mut Client) -> ConversationHint {
    let pick = |p: &Payload| if let Payload::Hint(hint) = p { Some(hint.clone()) } else { None };
    client.expect("a hint", pick).await
}

async fn connect(gateway: &Gateway, users: std::ops::RangeInclusive<i64>) -> Vec<Client> {
    join_all(users.map(|user| Client::connect(gateway, user, "phone"))).await
}

#[tokio::test]
async fn a_large_group_is_told_once_and_pulls_from_the_gateway() {
    let pair = Pair::start_with(|options| {
        options.env("TIDEGATE_GROUPS_PUSH_MEMBERS", "5").env("TIDEGATE_GROUPS_PULL_SPREAD", "400ms")
    })
    .await;
    make_team(&pair.a.http(), &(1..=41).collect::<Vec<_>>()).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut many = connect(&pair.a, 2..=21).await;
    many.extend(connect(&pair.b, 22..=41).await);
    for round in 1..=3 {
        let last = one.store_text(TEAM, &format!("m-{round}"), &format!("text {round}")).await;
        assert_eq!(last.seq, round);
        let mut delays = Vec::new();
        for client in &mut many {
            let hint = expect_hint(client).await;
            assert_eq!((hint.top_seq, hint.epoch), (round, last.epoch));
            assert!(hint.pull_delay_ms < SPREAD_MS, "{hint:?}");
            delays.push(hint.pull_delay_ms);
        }
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 5, "they all come at once: {delays:?}");
        for client in &mut many {
            let page = pull(client, round).await;
            let texts: Vec<_> = page.messages.iter().map(crate::text_of).collect();
            assert_eq!((texts, page.has_more), (vec![format!("text {round}").as_str()], false));
        }
    }
    for gateway in [&pair.a, &pair.b] {
        let (tail, store) = (metric(gateway, TAIL).await, metric(gateway, STORE).await);
        assert_eq!((tail, store), (60, 0));
    }
    for client in &mut many {
        client.beat().await;
        assert!(client.drain().is_empty());
    }
    // Told once: who does not come is not told again, and misses nothing.
    for round in 4..=6 {
        one.store_text(TEAM, &format!("m-{round}"), "late").await;
    }
    for client in &mut many {
        expect_hint(client).await;
        client.beat().await;
        assert!(client.drain().is_empty(), "told twice");
        let page = pull(client, 4).await;
        assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [4, 5, 6]);
    }
}

#[tokio::test]
async fn a_busy_group_goes_back_to_pushes_when_it_is_quiet() {
    let pair = Pair::start_with(|options| {
        options.env("TIDEGATE_GROUPS_PUSH_RATE", "20").env("TIDEGATE_GROUPS_PULL_SPREAD", "50ms")
    })
    .await;
    make_team(&pair.a.http(), &[1, 2, 3, 4, 5, 6]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut two = Client::connect(&pair.b, 2, "phone").await;
    let mut readers = connect(&pair.a, 3..=4).await;
    readers.extend(connect(&pair.b, 5..=6).await);
    let (mut from, mut sent) = (0, 0);
    for _ in 0..3 {
        for n in 0..100 {
            sent += 1;
            let sender = if n % 2 == 0 { &mut one } else { &mut two };
            sender.send_text(TEAM, &format!("m-{sent}"), "hello").await;
        }
        let hints = join_all(readers.iter_mut().map(|client| follow(client, from, sent))).await;
        assert!(hints.iter().all(|hints| *hints > 0), "{hints:?}");
        one.expect_stored(&format!("m-{}", sent - 1)).await;
        two.expect_stored(&format!("m-{sent}")).await;
        // Into another second.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        for _ in 0..5 {
            sent += 1;
            one.store_text(TEAM, &format!("m-{sent}"), "slowly").await;
        }
        let hints = join_all(readers.iter_mut().map(|client| follow(client, sent - 5, sent))).await;
        assert_eq!(hints, [0; 4]);
        from = sent;
    }
    for client in &mut readers {
        expect_silence(client).await;
    }
    // Who is quick pulls before a gateway has heard of what is in the log.
    let (a, b) = tokio::join!(metric(&pair.a, TAIL), metric(&pair.b, TAIL));
    assert!(a + b > 0);
}

#[tokio::test]
async fn a_message_pushed_behind_a_hint_is_not_lost_to_those_who_pull() {
    let pair = Pair::start_with(|options| {
        options.env("TIDEGATE_GROUPS_PUSH_RATE", "1").env("TIDEGATE_GROUPS_PULL_SPREAD", "10ms")
    })
    .await;
    make_team(&pair.a.http(), &[1, 2, 3]).await;
    let mut one = Client::connect(&pair.a, 1, "phone").await;
    let mut here = Client::connect(&pair.a, 2, "phone").await;
    let mut there = Client::connect(&pair.b, 3, "phone").await;
    one.send_text(TEAM, "m-1", "1").await;
    one.send_text(TEAM, "m-2", "2").await;
    one.send_text(TEAM, "m-3", "3").await;
    one.expect_stored("m-3").await;
    for client in [&mut here, &mut there] {
        expect_hint(client).await;
    }
    // In another second: it would be pushed, but they have not come yet.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    one.store_text(TEAM, "m-4", "4").await;
    for client in [&mut here, &mut there] {
        let page = pull(client, 1).await;
        let seqs: Vec<_> = page.messages.iter().map(|m| m.seq).collect();
        assert_eq!((seqs, page.has_more), (vec![1, 2, 3, 4], false));
    }
}
