//! Past the commit, or without the old process, nobody goes on: then a cold
//! start follows, clients connect again, and nothing that was acknowledged is
//! lost.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{AckStatus, Envelope};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::common::payload::{Frame, frame, frames, text};
use crate::common::{Gateway, Options, Redis, eventually, secs, within};
use crate::failing::impostor;
use crate::patient;
use crate::talker::{client_frame, connected, conversation, server_frame};

const USERS: i64 = 10;

/// What one user has said: numbers and the seqs they were stored with, and the
/// number that was not answered.
struct Said {
    user: i64,
    stream: Option<TcpStream>,
    stored: Vec<(u64, i64)>,
    begun: u64,
}

fn conversation_of(user: i64) -> String {
    conversation(user, user + 1_000)
}

/// The seq it is stored with; `None` = the connection has ended.
async fn store(stream: &mut TcpStream, user: i64, n: u64) -> Option<i64> {
    let message = text(&conversation_of(user), &format!("{user}-{n}"), &format!("this is {n}"));
    stream.write_all(&client_frame(0x82, &frame(Payload::Send(message)))).await.ok()?;
    loop {
        let (opcode, payload) = within("an answer or the end", secs(60), server_frame(stream)).await?;
        assert_eq!(opcode, 2, "nobody says goodbye: {payload:?}");
        for frame in frames(payload.into()) {
            let Frame::Envelope(Envelope { payload: Some(Payload::Ack(ack)), .. }) = frame else { continue };
            assert_eq!((ack.status(), ack.client_msg_id), (AckStatus::Stored, format!("{user}-{n}")));
            return Some(ack.seq);
        }
    }
}

/// Sends one after the other until the connection ends.
async fn say_until_the_end(mut said: Said) -> Said {
    let mut stream = said.stream.take().unwrap();
    while let Some(seq) = store(&mut stream, said.user, said.begun).await {
        said.stored.push((said.begun, seq));
        said.begun += 1;
        sleep(Duration::from_millis(20)).await;
    }
    said
}

/// Connects again, sends again what was not answered, and reads the log.
async fn come_back(gateway: &Gateway, said: &mut Said) {
    let mut stream = connected(gateway.listen, said.user).await;
    let seq = store(&mut stream, said.user, said.begun).await.expect("served again");
    said.stored.push((said.begun, seq));
    said.begun += 1;
    said.stream = Some(stream);
    let path = format!("/v1/history?conversationId={}&fromSeq=1&limit=500", conversation_of(said.user));
    let page = gateway.http().get(&path).await.success().json();
    let log = page["messages"].as_array().unwrap();
    let log: Vec<(u64, i64)> = log
        .iter()
        .map(|message| {
            assert_eq!(message["epoch"], log[0]["epoch"], "one history");
            let id = message["clientMsgId"].as_str().unwrap();
            (id.split_once('-').unwrap().1.parse().unwrap(), message["seq"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(log, said.stored, "each once, where it was acknowledged");
}

/// For each plan: all talk, a hot restart goes wrong for good, the gateway is
/// started again, and all come back.
async fn all_come_back(options: Options, plans: &[&str]) {
    let options = patient(options).env("TIDEGATE_HANDOVER_PAUSE", "8s");
    let mut gateway = Gateway::start(options).await;
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for user in 1..=USERS {
        let stream = Some(connected(gateway.listen, user).await);
        all.push(Said { user, stream, stored: Vec::new(), begun: 0 });
    }
    for plan in plans {
        let mut talking: JoinSet<Said> = all.drain(..).map(say_until_the_end).collect();
        sleep(Duration::from_millis(100)).await;
        let http = gateway.http().patient();
        let asked = json!({ "binary": impostor(dir.path(), plan) });
        let answer = tokio::spawn(async move { http.try_post("/v1/upgrade", &asked).await });
        while let Some(said) = within("everybody is cut off", secs(60), talking.join_next()).await {
            all.push(said.unwrap());
        }
        if let Some(answer) = answer.await.unwrap() {
            let why = answer["detail"].as_str().unwrap();
            assert!(why.contains("does not say that it serves"), "{plan}: {answer}");
        }
        let status = gateway.exit(secs(30)).await;
        assert!(!status.success(), "{plan}: {status}");
        eventually("nothing is left of the new process", secs(30), || async {
            is_alone(&gateway.data_dir()).then_some(())
        })
        .await;
        let epoch = gateway.epoch;
        gateway = gateway.restart().await;
        assert!(gateway.epoch > epoch, "{plan}: a cold start");
        for said in &mut all {
            come_back(&gateway, said).await;
        }
        println!("{plan}: {} messages", all.iter().map(|said| said.stored.len()).sum::<usize>());
    }
}

/// Whether no new process over this data is left.
fn is_alone(data: &Path) -> bool {
    let is_left = |process: std::fs::DirEntry| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        command.contains("--handover") && command.contains(&*data.to_string_lossy())
    };
    !std::fs::read_dir("/proc").unwrap().flatten().any(is_left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_past_the_commit_costs_a_reconnect_on_the_embedded_store() {
    all_come_back(Options::new(), &["commit:die", "commit:abort", "commit:stop"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_process_that_dies_at_any_step_costs_a_reconnect() {
    let plans = [
        "start:orphan",
        "welcome:orphan",
        "ready:orphan",
        "sockets:orphan",
        "cut:orphan",
        "state:orphan",
        "commit:orphan",
    ];
    all_come_back(Options::new(), &plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_having_taken_over_costs_a_reconnect_on_redis() {
    let redis = Redis::start().await;
    let mut gateway = Gateway::start(patient(Options::cluster(&redis, "gw-1"))).await;
    let mut all = Vec::new();
    for user in 1..=USERS {
        let stream = Some(connected(gateway.listen, user).await);
        all.push(Said { user, stream, stored: Vec::new(), begun: 0 });
    }
    let mut talking: JoinSet<Said> = all.drain(..).map(say_until_the_end).collect();
    gateway.upgrade().await;
    gateway.kill();
    while let Some(said) = within("everybody is cut off", secs(60), talking.join_next()).await {
        all.push(said.unwrap());
    }
    // The lease of the one that died has to run out.
    let gateway = gateway.restart().await;
    for said in &mut all {
        come_back(&gateway, said).await;
    }
}
