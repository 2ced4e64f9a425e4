//! Groups as their members see them: real gateways, real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod delivery;
mod hot;
mod interest;
mod members;
mod positions;

use bytes::Bytes;
use common::http::Reply;
use common::payload::text_of;
use common::{Client, Gateway, Http, Pair, SOON, eventually};
use hyper::Method;
use serde_json::{Value, json};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{ConversationChange, ConversationEvent, SyncReq, SyncResp};

const TEAM: &str = "g:team";
const AT: &str = "/v1/conversations/g:team";

/// Two gateways, and no group is too busy.
async fn start_pair() -> Pair {
    Pair::start_with(|options| options.env("TIDEGATE_GROUPS_PUSH_RATE", "100000")).await
}

/// Which gateways are told of messages in the team.
async fn audience(pair: &Pair) -> Vec<String> {
    let mut gateways: Vec<String> = pair.redis.query(&["HKEYS", "{c:g:team}:gateways"]).await;
    gateways.sort();
    gateways
}

/// Makes the team of these users.
async fn make_team(http: &Http, members: &[i64]) {
    let made = http.post("/v1/conversations", &json!({"id": TEAM, "members": members})).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// The team of 1, who is on `gw-a`, and of 2 and 3, who are on `gw-b`.
async fn connect_team(pair: &Pair) -> [Client; 3] {
    make_team(&pair.a.http(), &[1, 2, 3]).await;
    [
        Client::connect(&pair.a, 1, "phone").await,
        Client::connect(&pair.b, 2, "phone").await,
        Client::connect(&pair.b, 3, "phone").await,
    ]
}

async fn put_member(http: &Http, user: i64, change: &Value) -> Reply {
    let path = format!("{AT}/members/{user}");
    http.send(Method::PUT, &path, Bytes::from(change.to_string())).await.success()
}

async fn remove_member(http: &Http, user: i64) {
    http.send(Method::DELETE, &format!("{AT}/members/{user}"), Bytes::new()).await.success();
}

async fn delete_team(http: &Http) {
    http.send(Method::DELETE, AT, Bytes::new()).await.success();
}

/// A value of `/metrics`; 0 where there is no such line.
async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = gateway.http().get("/metrics").await.success().text();
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok();
    text.lines().find_map(value).map_or(0, |value| value as u64)
}

/// Waits until a value of `/metrics` is at least so much.
async fn metric_reaches(gateway: &Gateway, series: &str, least: u64) {
    eventually(&format!("{series} is {least}"), SOON, || async {
        (metric(gateway, series).await >= least).then_some(())
    })
    .await;
}

/// The next event of this kind about this user.
async fn expect_event(client: &mut Client, change: ConversationChange, user: i64) -> ConversationEvent {
    let what = format!("{change:?} of {user}");
    let pick = |payload: &Payload| match payload {
        Payload::ConversationEvent(event) if event.change() == change && event.user_id == user => {
            Some(event.clone())
        }
        _ => None,
    };
    client.expect(&what, pick).await
}

/// The texts of the next messages.
async fn expect_texts(client: &mut Client, expected: &[&str]) {
    for text in expected {
        assert_eq!(text_of(&client.expect_push().await), *text);
    }
}

/// Nothing of the team has come that was not asked for.
async fn expect_silence(client: &mut Client) {
    client.beat().await;
    assert_eq!(client.drain_texts(), [""; 0]);
}

/// Everything of the team from `from_seq` on that one answer holds.
async fn pull(client: &mut Client, from_seq: i64) -> SyncResp {
    let request = SyncReq {
        request_id: format!("r-{from_seq}"),
        conversation_id: TEAM.to_owned(),
        from_seq,
        limit: 500,
        ..SyncReq::default()
    };
    client.send(Payload::Sync(request)).await;
    let pick =
        |payload: &Payload| if let Payload::SyncResp(page) = payload { Some(page.clone()) } else { None };
    client.expect("a range", pick).await
}

/// Follows the team from behind `seq` to `end` as a client does: takes what is
/// pushed, and pulls when told. Every message comes once and in order. Returns
/// how often it was told to pull.
async fn follow(client: &mut Client, mut seq: i64, end: i64) -> u32 {
    let mut hints = 0;
    while seq < end {
        let pick = |payload: &Payload| {
            matches!(payload, Payload::Push(_) | Payload::Hint(_)).then(|| payload.clone())
        };
        match client.expect(&format!("{} of {end}", seq + 1), pick).await {
            Payload::Push(push) => {
                assert_eq!(push.seq, seq + 1);
                seq += 1;
            }
            Payload::Hint(hint) => {
                assert_eq!(hint.conversation_id, TEAM);
                hints += 1;
                loop {
                    let page = pull(client, seq + 1).await;
                    for message in page.messages {
                        assert_eq!(message.seq, seq + 1);
                        seq += 1;
                    }
                    if !page.has_more {
                        assert_eq!(seq, page.top_seq);
                        break;
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    hints
}
