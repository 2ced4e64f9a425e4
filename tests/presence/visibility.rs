//! Who may watch whom.

use serde_json::json;
use tidegate::proto::{Error, ErrorCode};

use super::common::{Client, Gateway, Options, Redis};
use super::*;

/// Who is refused of these.
async fn refused(watcher: &mut Client, users: &[i64]) -> Error {
    watcher.send(request(users, true)).await;
    let error = watcher.expect_error().await;
    assert_eq!(error.code(), ErrorCode::Forbidden, "{error:?}");
    error
}

async fn by_conversation(gateway: &Gateway) {
    let mut alice = Client::connect(gateway, 1, "phone").await;
    let mut bob = Client::connect(gateway, 2, "phone").await;
    // Nothing changes from here on.
    becomes(gateway, 1, true).await;
    becomes(gateway, 2, true).await;
    let error = refused(&mut alice, &[2, 3, 1]).await;
    assert_eq!(error.user_ids, [2, 3]);
    assert!(error.message.contains("you may not watch 2, 3"), "{}", error.message);
    // Of oneself one may know.
    assert_eq!(alice.expect_event().await.user_id, 1);

    // Once both have written.
    alice.store_text("p2p:1:2", "m-1", "hello?").await;
    assert_eq!(refused(&mut alice, &[2]).await.user_ids, [2]);
    assert_eq!(refused(&mut bob, &[1]).await.user_ids, [1]);
    bob.store_text("p2p:1:2", "m-2", "hello").await;
    assert!(alice.watch(&[2]).await[0].user_id == 2 && bob.watch(&[1]).await[0].user_id == 1);

    // A group in common.
    let group = json!({ "id": "g:team", "members": [1, 3] });
    gateway.http().post("/v1/conversations", &group).await.success();
    assert_eq!(refused(&mut alice, &[3, 4]).await.user_ids, [4]);
    assert_eq!(alice.expect_event().await.user_id, 3);

    // Whoever keeps another out is not seen by him any more.
    let path = "/v1/conversations/p2p:1:2/blacklist/1";
    gateway.http().send(hyper::Method::PUT, path, bytes::Bytes::new()).await.success();
    assert_eq!(refused(&mut alice, &[2]).await.user_ids, [2]);
}

#[tokio::test]
async fn by_default_a_common_conversation_is_needed() {
    let gateway = Gateway::start(Options::new()).await;
    by_conversation(&gateway).await;
}

#[tokio::test]
async fn the_same_in_redis() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    by_conversation(&gateway).await;
}

#[tokio::test]
async fn nobody_or_everybody_may_be_watched() {
    let none = Options::new().config("[presence]\nvisibility = \"none\"\n");
    let gateway = Gateway::start(none).await;
    let mut alice = Client::connect(&gateway, 1, "phone").await;
    assert_eq!(refused(&mut alice, &[2, 3]).await.user_ids, [2, 3]);

    let gateway = Gateway::start(Options::new().config("[presence]\nvisibility = \"all\"\n")).await;
    let mut alice = Client::connect(&gateway, 1, "phone").await;
    assert_eq!(alice.watch(&[2, 3]).await.len(), 2);
}
