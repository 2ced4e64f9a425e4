//! Groups as a backend makes and changes them, and as their members see it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test says no")]

mod common;

use std::process::{Command, Stdio};

use bytes::Bytes;
use common::http::Reply;
use common::{Client, Gateway, Http, Options};
use hyper::Method;
use serde_json::{Value, json};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{
    ConversationChange, ConversationEvent, ConversationsReq, ConversationsResp, Custom, ErrorCode,
};

const TEAM: &str = "g:team";
const AT: &str = "/v1/conversations/g:team";

async fn put(http: &Http, path: &str, body: &Value) -> Reply {
    http.send(Method::PUT, path, Bytes::from(body.to_string())).await
}

async fn delete(http: &Http, path: &str) -> Reply {
    http.send(Method::DELETE, path, Bytes::new()).await
}

async fn create(http: &Http, body: Value) -> Reply {
    http.post("/v1/conversations", &body).await
}

/// A team of these users.
async fn team(http: &Http, members: &[i64]) {
    assert_eq!(create(http, json!({"id": TEAM, "members": members})).await.status, 201);
}

async fn post_text(http: &Http, from: i64, id: &str) -> Reply {
    let body = json!({"conversationId": TEAM, "fromUserId": from, "clientMsgId": id, "textContent": id});
    http.post("/v1/messages", &body).await
}

/// A problem of this status, whose detail says `word`.
fn assert_problem(reply: &Reply, status: u16, word: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.header("content-type").starts_with("application/problem+json"), "{:?}", reply.headers);
    let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains(word), "{detail}: {word}");
}

fn numbers(values: &Value, name: &str) -> Vec<i64> {
    values.as_array().unwrap().iter().map(|value| value[name].as_i64().unwrap()).collect()
}

/// The next event of this kind about this user.
async fn expect_event(client: &mut Client, change: ConversationChange, user: i64) -> ConversationEvent {
    let what = format!("{change:?} of {user}");
    client
        .expect(&what, |payload| match payload {
            Payload::ConversationEvent(event) if event.change() == change && event.user_id == user => {
                Some(event.clone())
            }
            _ => None,
        })
        .await
}

/// A page of one's conversations.
async fn index(client: &mut Client) -> ConversationsResp {
    client.send(Payload::Conversations(ConversationsReq::default())).await;
    let pick = |payload: &Payload| {
        if let Payload::ConversationsResp(page) = payload { Some(page.clone()) } else { None }
    };
    client.expect("ConversationsResp", pick).await
}

#[tokio::test]
async fn a_group_is_made_once_looked_at_and_ended() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let body = json!({"id": TEAM, "members": [3, {"userId": 2, "role": "admin"}], "owner": 1});
    let made = create(&http, body.clone()).await;
    assert_eq!((made.status.as_u16(), &made.json()["members"]), (201, &json!(3)));
    let again = create(&http, body).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, made.json()));
    assert_problem(&create(&http, json!({"id": TEAM, "members": [1, 2]})).await, 409, "other members");

    for path in [AT, "/v1/conversations/g%3Ateam"] {
        let seen = http.get(path).await.success().json();
        assert_eq!(
            (&seen["id"], &seen["topSeq"], &seen["history"]),
            (&json!(TEAM), &json!(0), &json!("since_joining"))
        );
    }
    let roles = http.get(&format!("{AT}/members")).await.success().json();
    let roles: Vec<_> =
        roles["members"].as_array().unwrap().iter().map(|member| member["role"].clone()).collect();
    assert_eq!(roles, ["owner", "admin", "member"]);

    assert_problem(&http.get("/v1/conversations/g:none").await, 404, "not found");
    assert_problem(&http.get("/v1/conversations/p2p:1:2").await, 404, "not found");
    let text = json!({"conversationId": "p2p:1:2", "fromUserId": 1, "clientMsgId": "m", "textContent": "hi"});
    http.post("/v1/messages", &text).await.success();
    let pair = http.get("/v1/conversations/p2p:1:2").await.success().json();
    assert_eq!((&pair["members"], &pair["topSeq"]), (&json!(2), &json!(1)));

    delete(&http, AT).await.success();
    assert_problem(&delete(&http, AT).await, 404, "not found");
    assert_problem(&http.get(&format!("{AT}/members")).await, 404, "not found");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    team(&http, &[1]).await;
    for (body, word) in [
        (json!({"id": "team", "members": [1]}), "id:"),
        (json!({"id": "p2p:1:2", "members": [1, 2]}), "id: must be a group"),
        (json!({"id": TEAM, "members": []}), "members"),
        (json!({"id": TEAM, "members": [1, 0]}), "members[1]"),
        (json!({"id": TEAM, "members": [1], "history": "some"}), "some"),
        (json!({"id": TEAM, "members": [1], "colour": 1}), "colour"),
    ] {
        assert_problem(&create(&http, body).await, 400, word);
    }
    for (body, word) in [
        (json!({"role": "king"}), "king"),
        (json!({"muteUntil": -1}), "muteUntil"),
        (json!({"muted": true}), "muted"),
    ] {
        assert_problem(&put(&http, &format!("{AT}/members/1"), &body).await, 400, word);
    }
    for (path, word) in [
        ("/v1/conversations/x", "id:"),
        ("/v1/conversations/g:team/members?limit=0", "limit"),
        ("/v1/conversations/g:team/members?limit=x", "limit"),
        ("/v1/conversations/g:team/members?cursor=x", "cursor"),
        ("/v1/conversations/g:team/members?colour=1", "colour"),
        ("/v1/history", "conversationId"),
        ("/v1/history?conversationId=g:team&limit=501", "limit"),
        ("/v1/history?conversationId=g:team&fromSeq=-1", "fromSeq"),
        ("/v1/history?conversationId=g:team&direction=up", "up"),
        ("/v1/history?conversationId=g:team&userId=0", "userId"),
        ("/v1/users/1/conversations?limit=201", "limit"),
    ] {
        assert_problem(&http.get(path).await, 400, word);
    }
    let unknown = "/v1/conversations/g:none";
    assert_problem(&put(&http, &format!("{unknown}/members/1"), &json!({})).await, 404, "not found");
    assert_problem(&delete(&http, &format!("{AT}/members/9")).await, 404, "not found");
    assert_problem(&http.get(&format!("{unknown}/blacklist")).await, 404, "not found");
    assert_problem(&http.get("/v1/history?conversationId=g:none").await, 404, "not found");
}

#[tokio::test]
async fn the_largest_group_can_be_made_and_paged_through() {
    const LARGEST: i64 = 100_000;
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let mut last = Client::connect(&gateway, i64::MAX, "phone").await;
    // Ids as long as they get.
    let members: Vec<i64> = (0..LARGEST).map(|n| i64::MAX - n).collect();
    team(&http, &members).await;
    assert_eq!(expect_event(&mut last, ConversationChange::Joined, i64::MAX).await.role, "member");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("{AT}/members?limit=1000{cursor}")).await.success().json();
        seen.extend(numbers(&page["members"], "userId"));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(seen.is_sorted() && seen.len() == members.len(), "{}", seen.len());
    let one_more: Vec<i64> = (1..=LARGEST + 1).collect();
    assert_problem(&create(&http, json!({"id": "g:more", "members": one_more})).await, 400, "members");
}

#[tokio::test]
async fn members_come_change_and_go() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut laptop = Client::connect(&gateway, 42, "laptop").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    team(&http, &[1, 43]).await;
    expect_event(&mut friend, ConversationChange::Joined, 43).await;
    assert!(index(&mut phone).await.conversations.is_empty());
    post_text(&http, 1, "before").await.success();
    let at = format!("{AT}/members/42");

    let added = put(&http, &at, &json!({"role": "admin"})).await;
    let expected = json!({"userId": 42, "role": "admin", "sinceSeq": 1, "muteUntil": 0});
    assert_eq!((added.status.as_u16(), added.json()), (201, expected.clone()));
    for device in [&mut phone, &mut laptop, &mut friend] {
        let event = expect_event(device, ConversationChange::Joined, 42).await;
        assert_eq!(
            (event.conversation_id.as_str(), event.role.as_str(), event.since_seq),
            (TEAM, "admin", 1)
        );
    }
    // The same again changes nothing, and nobody is told.
    let same = http.send(Method::PUT, &at, Bytes::new()).await;
    assert_eq!((same.status.as_u16(), same.json()), (200, expected));
    let listed = index(&mut phone).await;
    assert_eq!(listed.conversations[0].conversation_id, TEAM);
    assert_eq!(phone.store_text(TEAM, "m-1", "hello").await.seq, 2);

    let until = i64::MAX;
    assert_eq!(
        put(&http, &at, &json!({"muteUntil": until})).await.success().json()["muteUntil"],
        json!(until)
    );
    for device in [&mut laptop, &mut friend] {
        assert_eq!(expect_event(device, ConversationChange::Muted, 42).await.mute_until, until);
    }
    phone.send_text(TEAM, "m-2", "hello").await;
    assert_eq!(phone.expect_failed("m-2").await, ErrorCode::Forbidden);
    assert_problem(&post_text(&http, 42, "m-3").await, 403, "muted");
    put(&http, &at, &json!({"muteUntil": 0, "role": "member"})).await.success();
    assert_eq!(expect_event(&mut friend, ConversationChange::Role, 42).await.role, "member");
    assert_eq!(expect_event(&mut friend, ConversationChange::Muted, 42).await.mute_until, 0);
    phone.store_text(TEAM, "m-2", "hello").await;

    delete(&http, &at).await.success();
    for device in [&mut phone, &mut laptop, &mut friend] {
        expect_event(device, ConversationChange::Removed, 42).await;
    }
    phone.send_text(TEAM, "m-4", "hello").await;
    assert_eq!(phone.expect_failed("m-4").await, ErrorCode::NotFound);
    assert_problem(&post_text(&http, 42, "m-5").await, 404, "not found");
    assert!(index(&mut phone).await.conversations.is_empty());
    let joined =
        |p: &Payload| matches!(p, Payload::ConversationEvent(e) if e.change() == ConversationChange::Joined);
    assert!(!friend.drain().iter().any(joined), "told twice");
}

#[tokio::test]
async fn who_is_blocked_stays_out() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    team(&http, &[42, 43]).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let at = format!("{AT}/blacklist/42");
    assert_eq!(put(&http, &at, &Value::Null).await.success().json()["removed"], json!(true));
    expect_event(&mut phone, ConversationChange::Removed, 42).await;
    assert_eq!(put(&http, &at, &Value::Null).await.success().json()["removed"], json!(false));
    assert_eq!(http.get(&format!("{AT}/blacklist")).await.success().json(), json!({"users": [42]}));
    assert_problem(&put(&http, &format!("{AT}/members/42"), &json!({})).await, 409, "blacklist");
    delete(&http, &at).await.success();
    assert_problem(&delete(&http, &at).await, 404, "not found");
    assert_eq!(put(&http, &format!("{AT}/members/42"), &json!({})).await.status, 201);

    // Between two users it is the sends that are refused.
    let pair = "/v1/conversations/p2p%3A42%3A43/blacklist";
    assert_problem(&put(&http, &format!("{pair}/44"), &Value::Null).await, 404, "not found");
    put(&http, &format!("{pair}/42"), &Value::Null).await.success();
    phone.send_text("p2p:42:43", "m-1", "hello").await;
    assert_eq!(phone.expect_failed("m-1").await, ErrorCode::Forbidden);
    delete(&http, &format!("{pair}/42")).await.success();
    phone.store_text("p2p:42:43", "m-1", "hello").await;
}

#[tokio::test]
async fn history_is_read_both_ways_and_as_a_member_sees_it() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    team(&http, &[1, 2]).await;
    for n in 1..=3 {
        post_text(&http, 1, &format!("m-{n}")).await.success();
    }
    put(&http, &format!("{AT}/members/3"), &json!({})).await.success();
    put(&http, &format!("{AT}/members/4"), &json!({"history": "full"})).await.success();
    for n in 4..=5 {
        post_text(&http, 0, &format!("m-{n}")).await.success();
    }
    let page = async |query: &str| {
        let page = http.get(&format!("/v1/history?conversationId=g:team{query}")).await.success().json();
        assert_eq!(page["topSeq"], json!(5));
        (
            numbers(&page["messages"], "seq"),
            page["hasMore"] == json!(true),
            page["firstAvailableSeq"].as_i64().unwrap(),
        )
    };
    assert_eq!(page("").await, (vec![1, 2, 3, 4, 5], false, 1));
    assert_eq!(page("&fromSeq=2&limit=2").await, (vec![2, 3], true, 1));
    assert_eq!(page("&direction=backward&limit=2").await, (vec![5, 4], true, 1));
    assert_eq!(page("&direction=backward&fromSeq=2").await, (vec![2, 1], false, 1));
    assert_eq!(page("&userId=3").await, (vec![4, 5], false, 4));
    assert_eq!(page("&userId=3&direction=backward&limit=2").await, (vec![5, 4], false, 4));
    assert_eq!(page("&userId=3&direction=backward&fromSeq=3").await, (vec![], false, 4));
    assert_eq!(page("&userId=4&limit=1").await, (vec![1], true, 1));
    assert_problem(&http.get("/v1/history?conversationId=g:team&userId=9").await, 404, "not found");

    let first = &http.get("/v1/history?conversationId=g:team&limit=1").await.success().json()["messages"][0];
    assert_eq!((&first["clientMsgId"], &first["fromUserId"]), (&json!("m-1"), &json!(1)));
    assert_eq!((&first["type"], &first["textContent"]), (&json!("TEXT"), &json!("m-1")));
    assert!(first["serverTime"].as_i64() > Some(0) && first["serverMsgId"].is_string(), "{first}");

    let mine = http.get("/v1/users/3/conversations").await.success().json();
    let position = &mine["conversations"][0];
    assert_eq!((&position["topSeq"], &position["unread"]), (&json!(5), &json!(2)));
    assert_eq!((numbers(&mine["conversations"], "readSeq"), &mine["nextCursor"]), (vec![0], &Value::Null));
}

#[tokio::test]
async fn a_payload_reaches_the_members_that_are_online() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut stranger = Client::connect(&gateway, 44, "phone").await;
    team(&http, &[42, 43]).await;
    let body = json!({"target": {"conversation": TEAM}, "topic": "news", "payload": "x"});
    let told = http.post("/v1/push", &body).await.success().json();
    assert_eq!(told, json!({"online": 1, "offline": 1, "delivered": 1}));
    let pick = |p: &Payload| if let Payload::Custom(custom) = p { Some(custom.clone()) } else { None };
    let custom: Custom = phone.expect("a Custom", pick).await;
    assert_eq!((custom.topic.as_str(), custom.conversation_id.as_str()), ("news", TEAM));
    stranger.beat().await;
    assert!(stranger.drain().is_empty(), "a push went astray");
    let nowhere = json!({"target": {"conversation": "g:none"}, "topic": "news", "payload": "x"});
    assert_problem(&http.post("/v1/push", &nowhere).await, 404, "not found");
}

#[tokio::test]
async fn a_message_is_stored_once_over_http() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    team(&http, &[42]).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let stored = post_text(&http, 42, "m-1").await.success().json();
    assert_eq!(post_text(&http, 42, "m-1").await.success().json()["duplicate"], json!(true));
    // Also when the sender's own device repeats it.
    let repeated = json!({"conversationId": TEAM, "fromUserId": 42, "clientMsgId": "m-2", "textContent": "hello",
        "meta": {"lang": "en"}});
    let ack = phone.store_text(TEAM, "m-2", "hello").await;
    let again = http.post("/v1/messages", &repeated).await.success().json();
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(ack.seq), &json!(true)));
    assert!(ack.seq > stored["seq"].as_i64().unwrap());
    assert_problem(&post_text(&http, 7, "m-3").await, 404, "not found");
    let nowhere = json!({"conversationId": "g:none", "clientMsgId": "m", "textContent": "x"});
    assert_problem(&http.post("/v1/messages", &nowhere).await, 404, "not found");
}

/// What `tidegate` prints with these arguments, and whether it went well.
fn run(gateway: &Gateway, line: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let args: Vec<&str> = line.split(' ').collect();
    command.args(&args).stdin(Stdio::null()).env_remove("TIDEGATE_ADMIN_API_KEY");
    match args[0] {
        "group" => command.arg("--admin").arg(format!("http://{}", gateway.admin)),
        _ => command.arg("--url").arg(format!("ws://{}/ws", gateway.listen)),
    };
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn the_command_line_makes_and_changes_groups() {
    let gateway = Gateway::start(Options::new()).await;
    let says = |line: &str| {
        let (good, said) = run(&gateway, line);
        assert!(good, "{line}: {said}");
        said
    };
    let refused = |line: &str, word: &str| {
        let (good, said) = run(&gateway, line);
        assert!(!good && said.contains(word), "{line}: {said}");
    };
    for _ in 0..2 {
        assert_eq!(says("group create g:team 1 2 --owner 3"), "g:team members=3\n");
    }
    refused("group create g:team 1", "409");
    assert_eq!(says("group add g:team 4 5"), "4 member\n5 member\n");
    assert_eq!(says("group remove g:team 5"), "5 removed\n");
    refused("group remove g:team 5", "404");
    assert_eq!(says("group list g:team"), "1 member\n2 member\n3 owner\n4 member\n");
    let sent = says("send --user 4 --to g:team hello");
    assert!(sent.starts_with("stored g:team seq=1 "), "{sent}");
    refused("send --user 5 --to g:team hello", "NOT_FOUND");
}
