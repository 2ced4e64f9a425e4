//! Signed tokens: the four places they may come in, and what is refused.

mod common;

use common::token::{SECRET, jwt_options, now, sign, token};
use common::{Client, Gateway, secs, within};
use serde_json::json;
use tidegate::proto::Identify;
use tidegate::proto::envelope::Payload;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn identify(token: &str, device: &str) -> Payload {
    let client = [("platform".to_owned(), "test".to_owned())].into();
    Payload::Identify(Identify {
        token: token.to_owned(),
        device_id: device.to_owned(),
        have: Vec::new(),
        client,
    })
}

async fn refused(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Option<String> {
    Client::try_open(gateway, target, headers).await.err()
}

#[tokio::test]
async fn a_token_is_taken_from_every_place() {
    let gateway = Gateway::start(jwt_options()).await;
    let jwt = token(42, "phone");
    let (header, protocols) = (bearer(&jwt), format!("tidegate.v1, bearer.{jwt}"));
    let query = format!("/ws?access_token={jwt}");
    let places: [(&str, Vec<(&str, &str)>); 3] = [
        ("/ws?user=7&device=other", vec![("authorization", header.as_str())]),
        ("/ws", vec![("sec-websocket-protocol", protocols.as_str())]),
        (&query, vec![]),
    ];
    for (target, headers) in places {
        let mut client = Client::open_with(&gateway, target, &headers).await;
        client.expect_ready().await;
        assert_eq!(
            (client.ready.user_id, client.ready.device_id.as_str()),
            (42, "phone"),
            "{target} {headers:?}"
        );
        client.beat().await;
    }
    let mut client = Client::open(&gateway, "/ws").await;
    client.send(identify(&jwt, "")).await;
    client.expect_ready().await;
    assert_eq!((client.ready.user_id, client.ready.device_id.as_str()), (42, "phone"));
}

#[tokio::test]
async fn the_device_comes_from_the_token_or_else_from_the_query() {
    let gateway = Gateway::start(jwt_options()).await;
    let jwt = sign(&json!({"sub": "42", "exp": now() + 3600}), SECRET);
    for (target, device) in [("/ws?device=tv", "tv"), ("/ws", "default")] {
        let mut client = Client::open_with(&gateway, target, &[("authorization", &bearer(&jwt))]).await;
        client.expect_ready().await;
        assert_eq!(client.ready.device_id, device);
    }
    let mut client = Client::open(&gateway, "/ws").await;
    client.send(identify(&jwt, "watch")).await;
    client.expect_ready().await;
    assert_eq!(client.ready.device_id, "watch");
}

#[tokio::test]
async fn a_bad_token_is_refused_in_the_handshake() {
    let gateway = Gateway::start(jwt_options()).await;
    let claims = json!({"sub": "42", "device": "phone", "exp": now() + 3600});
    let good = sign(&claims, SECRET);
    let (head, rest) = good.split_once('.').unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", rest.split_once('.').unwrap().0);
    let bad = [
        "garbage".to_owned(),
        format!("{head}.{rest}x"),
        sign(&claims, "another-secret-of-the-tests-of-enough-bytes"),
        sign(&json!({"sub": "42", "device": "phone", "exp": now() - 3600}), SECRET),
        sign(&json!({"sub": "42", "device": "phone", "exp": now() + 7200, "nbf": now() + 3600}), SECRET),
        sign(&json!({"sub": "nobody", "device": "phone", "exp": now() + 3600}), SECRET),
        sign(&json!({"sub": "0", "device": "phone", "exp": now() + 3600}), SECRET),
        unsigned,
    ];
    for jwt in &bad {
        assert_eq!(
            refused(&gateway, "/ws", &[("authorization", &bearer(jwt))]).await.as_deref(),
            Some("401"),
            "{jwt}"
        );
        assert_eq!(
            refused(&gateway, &format!("/ws?access_token={jwt}"), &[]).await.as_deref(),
            Some("401"),
            "{jwt}"
        );
        let protocols = format!("tidegate.v1, bearer.{jwt}");
        assert_eq!(
            refused(&gateway, "/ws", &[("sec-websocket-protocol", &protocols)]).await.as_deref(),
            Some("401"),
            "{jwt}"
        );
    }
    // The first found wins: a good one behind a bad one does not help.
    let both =
        refused(&gateway, &format!("/ws?access_token={good}"), &[("authorization", "Bearer garbage")]).await;
    assert_eq!(both.as_deref(), Some("401"));
}

#[tokio::test]
async fn a_bad_token_in_band_is_4001() {
    let gateway = Gateway::start(jwt_options()).await;
    for jwt in ["", "garbage", &sign(&json!({"sub": "42", "exp": now() - 3600}), SECRET)] {
        let mut client = Client::open(&gateway, "/ws").await;
        client.send(identify(jwt, "phone")).await;
        assert_eq!(client.expect_close().await, Some(4001), "{jwt:?}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_4001_within_five_seconds() {
    let gateway = Gateway::start(jwt_options()).await;
    let mut silent = Client::open(&gateway, "/ws?user=42&device=phone").await;
    assert_eq!(within("the end of a stranger", secs(7), silent.expect_close()).await, Some(4001));
}

#[tokio::test]
async fn nothing_is_done_for_a_stranger() {
    let gateway = Gateway::start(jwt_options()).await;
    let mut stranger = Client::open(&gateway, "/ws").await;
    stranger.send_text("p2p:42:43", "m-1", "let me in").await;
    assert_eq!(stranger.expect_close().await, Some(4001));
    assert!(
        !stranger.drain().iter().any(|payload| matches!(payload, Payload::Ready(_) | Payload::Ack(_))),
        "a stranger was served"
    );
}
