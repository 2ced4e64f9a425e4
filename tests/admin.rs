//! The interface for operators.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use common::http::Reply;
use common::payload::text_of;
use common::{Client, Gateway, Options, SOON, eventually};
use hyper::Method;
use serde_json::{Value, json};
use tidegate::proto::envelope::Payload;
use tidegate::proto::{Custom, KickReason};

const CHAT: &str = "p2p:42:43";

/// Errors speak RFC 9457.
fn assert_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.header("content-type").starts_with("application/problem+json"), "{:?}", reply.headers);
    let problem = reply.json();
    assert!(problem.get("title").and_then(Value::as_str).is_some_and(|title| !title.is_empty()), "{problem}");
    assert_eq!(problem.get("status").and_then(Value::as_u64), Some(status.into()), "{problem}");
}

async fn next_custom(client: &mut Client) -> Custom {
    client
        .expect("a Custom", |p| if let Payload::Custom(custom) = p { Some(custom.clone()) } else { None })
        .await
}

#[tokio::test]
async fn it_says_that_it_lives_is_ready_and_what_it_is() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    for path in ["/livez", "/readyz"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let status = http.get("/v1/status").await.success().json();
    assert_eq!(status["gatewayId"], json!(gateway.id));
    assert_eq!(status["epoch"], json!(gateway.epoch));
    assert_eq!(status["pid"], json!(gateway.process_id()));
    assert_eq!(status["version"], json!(env!("CARGO_PKG_VERSION")));
    assert!(!status["build"].is_null(), "{status}");
    assert_eq!(status["connections"], json!(0));

    let _phone = Client::connect(&gateway, 42, "phone").await;
    let _laptop = Client::connect(&gateway, 42, "laptop").await;
    assert_eq!(http.get("/v1/status").await.json()["connections"], json!(2));
}

#[tokio::test]
async fn it_knows_where_a_user_is() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let _phone = Client::connect(&gateway, 42, "phone").await;
    let laptop = Client::connect(&gateway, 42, "laptop").await;

    let route = http.get("/v1/users/42/route").await.success().json();
    assert_eq!((&route["userId"], &route["gatewayId"]), (&json!(42), &json!(gateway.id)));
    assert_eq!(route["devices"].as_array().map(Vec::len), Some(2), "{route}");
    let connections = http.get("/v1/users/42/connections").await.success().text();
    for device in ["\"phone\"", "\"laptop\""] {
        assert!(route["devices"].to_string().contains(device), "{route}");
        assert!(connections.contains(device), "{connections}");
    }
    laptop.close().await;
    eventually("the laptop is no longer listed", SOON, || async {
        let (route, connections) =
            (http.get("/v1/users/42/route").await, http.get("/v1/users/42/connections").await);
        (!route.text().contains("laptop") && !connections.text().contains("laptop")).then_some(())
    })
    .await;
    let nobody = http.get("/v1/users/77/route").await;
    assert!(nobody.status == 404 || nobody.json()["devices"] == json!([]), "{}", nobody.text());
}

#[tokio::test]
async fn it_kicks_every_device_of_a_user() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut laptop = Client::connect(&gateway, 42, "laptop").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    gateway.http().post("/v1/users/42/kick", &json!({})).await.success();
    for device in [&mut phone, &mut laptop] {
        let (kick, code) = device.expect_kick(KickReason::Admin).await;
        assert!(!kick.may_reconnect);
        assert_eq!(code, Some(4003));
    }
    friend.beat().await;
}

#[tokio::test]
async fn it_pushes_to_users_and_to_all() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut laptop = Client::connect(&gateway, 42, "laptop").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;

    let body = json!({"target": {"users": [42, 77]}, "topic": "news", "payload": "aGVsbG8="});
    let told = http.post("/v1/push", &body).await.success().json();
    assert_eq!((&told["online"], &told["offline"]), (&json!(1), &json!(1)), "{told}");
    assert!(told["delivered"].as_u64() >= Some(1), "{told}");
    for device in [&mut phone, &mut laptop] {
        let custom = next_custom(device).await;
        assert_eq!((custom.topic.as_str(), custom.from_user_id), ("news", 0));
        assert!(!custom.payload.is_empty());
    }
    let body = json!({"target": {"all": true}, "topic": "notice", "payload": "aGVsbG8="});
    let told = http.post("/v1/push", &body).await.success().json();
    assert!(told["online"].as_u64() >= Some(2) && told["delivered"].as_u64() >= Some(2), "{told}");
    assert!(told.get("offline").is_none(), "{told}");
    for device in [&mut phone, &mut laptop, &mut friend] {
        assert_eq!(next_custom(device).await.topic, "notice");
    }
    assert!(
        !friend.drain().iter().any(|payload| matches!(payload, Payload::Custom(_))),
        "a push went astray"
    );
}

#[tokio::test]
async fn it_sends_for_the_system_and_for_a_user() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    for (seq, from) in [(1, 0), (2, 42)] {
        let id = format!("admin-{from}");
        let body =
            json!({"conversationId": CHAT, "fromUserId": from, "clientMsgId": id, "textContent": "a word"});
        let stored = http.post("/v1/messages", &body).await.success().json();
        assert_eq!(stored["seq"], json!(seq), "{stored}");
        for device in [&mut phone, &mut friend] {
            let push = device.expect_push().await;
            assert_eq!((push.seq, push.from_user_id, text_of(&push)), (seq, from, "a word"));
            assert_eq!(stored["serverMsgId"], json!(push.server_msg_id));
        }
        // The same pipeline: a repeated one is the original.
        let again = http.post("/v1/messages", &body).await.success().json();
        assert_eq!((&again["seq"], &again["serverMsgId"]), (&stored["seq"], &stored["serverMsgId"]));
    }
    let alien =
        json!({"conversationId": "p2p:43:44", "fromUserId": 42, "clientMsgId": "x", "textContent": "a word"});
    assert!(http.post("/v1/messages", &alien).await.status.is_client_error());
}

#[tokio::test]
async fn errors_are_problem_details() {
    let gateway = Gateway::start(Options::new()).await;
    let http = gateway.http();
    for path in ["/nope", "/v1", "/v1/nope", "/v1/users/42/nope", "/v1/users/42/..%2froute"] {
        assert_problem(&http.get(path).await, 404);
    }
    for (method, path, allow) in [
        (Method::POST, "/v1/status", "GET"),
        (Method::DELETE, "/v1/users/42/route", "GET"),
        (Method::GET, "/v1/push", "POST"),
        (Method::GET, "/v1/users/42/kick", "POST"),
        (Method::PUT, "/v1/messages", "POST"),
    ] {
        let reply = http.send(method, path, Bytes::new()).await;
        assert_problem(&reply, 405);
        assert!(reply.header("allow").contains(allow), "{path}: {:?}", reply.headers);
    }
    for user in ["abc", "0", "-1", "1.5", "99999999999999999999"] {
        assert_problem(&http.get(&format!("/v1/users/{user}/route")).await, 400);
    }
    for body in ["{", "[]", "{}", "{\"target\": {}, \"topic\": \"x\", \"payload\": \"\"}"] {
        assert_problem(&http.send(Method::POST, "/v1/push", Bytes::from(body)).await, 400);
    }
    let bad =
        json!({"conversationId": "p2p:43:42", "fromUserId": 42, "clientMsgId": "x", "textContent": "a word"});
    assert_problem(&http.post("/v1/messages", &bad).await, 400);
}

#[tokio::test]
async fn the_openapi_document_lists_every_route() {
    let gateway = Gateway::start(Options::new()).await;
    let document = gateway.http().get("/openapi.json").await.success().json();
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")),
        "{}",
        document["openapi"]
    );
    let routes = [
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/v1/status", "get"),
        ("/v1/users/{user}/route", "get"),
        ("/v1/users/{user}/connections", "get"),
        ("/v1/users/{user}/kick", "post"),
        ("/v1/messages", "post"),
        ("/v1/push", "post"),
    ];
    for (path, method) in routes {
        let operation = &document["paths"][path][method];
        assert!(operation["responses"].is_object(), "{method} {path}: {operation}");
    }
    // And what it lists is there.
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        let path = path.replace("{user}", "42").replace("{id}", "g:none");
        for method in operations.as_object().into_iter().flatten().map(|(method, _)| method) {
            if method == "get" {
                let reply = gateway.http().get(&path).await;
                assert_ne!(reply.status, 405, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let mut friend = Client::connect(&gateway, 43, "phone").await;
    phone.store_text(CHAT, "m-1", "x").await;
    friend.expect_push().await;
    let metrics = gateway.http().get("/metrics").await.success();
    assert!(metrics.header("content-type").starts_with("text/plain"), "{:?}", metrics.headers);
    let text = metrics.text();
    let ours = |line: &&str| !line.starts_with('#') && !line.is_empty();
    for line in text.lines().filter(ours) {
        assert!(line.starts_with("tidegate_"), "{line}");
        assert!(!line.contains(CHAT) && !line.contains("phone"), "a label carries an identity: {line}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start promtool ({error}): run ./test once, it sets up what the tests need")
        });
    promtool.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn a_configured_key_is_demanded() {
    let key = "a-key-of-the-tests-1234";
    let gateway = Gateway::start(Options::new().config(format!("[admin]\napi_key = \"{key}\"\n"))).await;
    let http = gateway.http();
    let body = json!({"target": {"all": true}, "topic": "x", "payload": ""});
    for stranger in [
        http.clone(),
        http.with_key(""),
        http.with_key("a-key-of-the-tests-1235"),
        http.with_key(&format!("{key}x")),
    ] {
        assert_problem(&stranger.get("/v1/status").await, 401);
        assert_problem(&stranger.get("/v1/users/42/route").await, 401);
        assert_problem(&stranger.post("/v1/push", &body).await, 401);
        assert_problem(&stranger.post("/v1/users/42/kick", &Value::Null).await, 401);
    }
    assert_eq!(http.with_key(key).get("/v1/status").await.status, 200);
}
