//! A gateway whose clients are to go elsewhere, and the verbs of the command
//! line for it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::process::{Command, Output};
use std::time::Instant;

use common::raw::Raw;
use common::{Client, Gateway, Options, Redis, eventually, secs};
use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{GoAway, GoAwayReason};

async fn expect_go_away(client: &mut Client) -> GoAway {
    let pick =
        |payload: &Payload| if let Payload::GoAway(away) = payload { Some(away.clone()) } else { None };
    client.expect("a GoAway", pick).await
}

/// `tidegate` with these arguments and the address of the admin listener.
fn tidegate(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", gateway.admin);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).args(["--admin", &admin]).env_remove("TIDEGATE_ADMIN_API_KEY").output().unwrap()
}

#[tokio::test]
async fn clients_are_told_when_to_come_back_and_their_routes_are_gone() {
    let redis = Redis::start().await;
    let mut gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let mut clients = Vec::new();
    for user in 1..=20 {
        clients.push(Client::connect(&gateway, user, "phone").await);
    }
    gateway.terminate();
    let mut waits = Vec::new();
    for client in &mut clients {
        let away = expect_go_away(client).await;
        assert_eq!(away.reason(), GoAwayReason::Drain);
        waits.push(away.reconnect_after_ms);
        assert_eq!(client.expect_close().await, Some(1001));
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 10, "drawn for each: {waits:?}");
    assert!(gateway.exit(secs(15)).await.success());
    let keys: Vec<String> = redis.query(&["KEYS", "*route:*"]).await;
    assert_eq!(keys, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_drains_and_while_it_does_nobody_is_let_in() {
    let mut gateway = Gateway::start(Options::new()).await;
    // Reads nothing and does not leave: it has its time.
    let _stubborn = Raw::upgraded(&gateway, 7).await;
    let output = tidegate(&gateway, &["drain", "--within", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 connections are asked to leave\n");
    let http = gateway.http();
    assert_eq!(http.try_status("/readyz").await, Some(503));
    let again = http.post("/v1/drain", &json!({})).await;
    assert_eq!(again.status, 409, "{}", again.text());
    eventually("the listener is closed", secs(5), || async {
        tokio::net::TcpStream::connect(gateway.listen).await.is_err().then_some(())
    })
    .await;
    assert!(gateway.exit(secs(15)).await.success());
    assert!(!tidegate(&gateway, &["drain"]).status.success(), "nobody is there");
    assert!(!tidegate(&gateway, &["upgrade"]).status.success(), "nobody is there");
}

#[tokio::test]
async fn who_asks_twice_is_served_at_once() {
    let mut gateway = Gateway::start(Options::new().env("TIDEGATE_HANDOVER_DRAIN", "10m")).await;
    let _stubborn = Raw::upgraded(&gateway, 7).await;
    gateway.terminate();
    eventually("it drains", secs(5), || async {
        (gateway.http().try_status("/readyz").await == Some(503)).then_some(())
    })
    .await;
    let asked = Instant::now();
    gateway.terminate();
    gateway.exit(secs(10)).await;
    assert!(asked.elapsed() < secs(2), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_upgrades_and_says_so() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let refused = tidegate(&gateway, &["upgrade", "--binary", "/bin/false"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("serve --check"), "{refused:?}");
    let output = tidegate(&gateway, &["upgrade", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["moved"], &report["drained"]), (&json!(1), &json!(0)));
    gateway.adopt(u32::try_from(report["pid"].as_u64().unwrap()).unwrap()).await;
    phone.store_text("p2p:42:43", "m-1", "still here").await;
}

#[tokio::test]
async fn a_signal_upgrades_too() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let before = gateway.process_id();
    gateway.signal(nix::sys::signal::Signal::SIGUSR2);
    let run = gateway.data_dir().join("run.json");
    let heir = eventually("another process serves", secs(20), || async {
        let run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&run).ok()?).unwrap();
        u32::try_from(run["pid"].as_u64()?).ok().filter(|pid| *pid != before)
    })
    .await;
    gateway.adopt(heir).await;
    phone.beat().await;
    phone.store_text("p2p:42:43", "m-1", "still here").await;
}
