//! Either process killed, stopped or short of something from outside, before
//! the commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Gateway, Options, eventually, secs};
use crate::failing::{refused, wrapped};
use crate::moving::{everybody_goes_on, settle, talkers};
use crate::patient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time() {
    let mut gateway = Gateway::start(patient(Options::new())).await;
    let http = gateway.http().patient();
    let ask = || async { http.post("/v1/upgrade", &json!({})).await };
    let (a, b) = tokio::join!(ask(), ask());
    let (done, refused) = if a.status == 200 { (a, b) } else { (b, a) };
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("under way"), "{}", refused.text());
    let pid = done.success().json()["pid"].as_u64().unwrap();
    gateway.adopt(u32::try_from(pid).unwrap()).await;
    assert_eq!(gateway.http().get("/readyz").await.status, 200);
}

/// A program that takes its time, so that it is seen.
fn slow(dir: &Path) -> PathBuf {
    wrapped(dir, "slow", "sleep 2")
}

/// The process that was started by this one.
fn child_of(pid: u32) -> Option<u32> {
    let parent = |stat: &str| -> Option<u32> { stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok() };
    let all =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut all = all.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let is_handover = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        parent(&stat) == Some(pid) && String::from_utf8_lossy(&is_handover).contains("--handover")
    });
    all.next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_is_stopped_is_given_up() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let talkers = talkers(&gateway, 20, Duration::from_millis(20)).await;
    everybody_goes_on(&talkers, 2).await;
    let http = gateway.http().patient();
    let dir = tempfile::tempdir().unwrap();
    let slow = slow(dir.path());
    let asked = tokio::spawn(async move { http.post("/v1/upgrade", &json!({ "binary": slow })).await });
    let child = eventually("a new process", secs(30), || async { child_of(gateway.process_id()) }).await;
    kill(Pid::from_raw(child.cast_signed()), Signal::SIGSTOP).unwrap();
    let reply = asked.await.unwrap();
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(child_of(gateway.process_id()).is_none(), "it is ended");
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_process_that_dies_before_the_commit_takes_the_new_one_along() {
    let mut gateway = Gateway::start(patient(Options::new())).await;
    let http = gateway.http().patient();
    let dir = tempfile::tempdir().unwrap();
    let slow = slow(dir.path());
    let asked = tokio::spawn(async move { http.try_post("/v1/upgrade", &json!({ "binary": slow })).await });
    let child = eventually("a new process", secs(30), || async { child_of(gateway.process_id()) }).await;
    gateway.kill();
    assert_eq!(asked.await.unwrap(), None::<Value>);
    eventually("the new process has ended", secs(30), || async {
        (!Path::new(&format!("/proc/{child}/exe")).exists()).then_some(())
    })
    .await;
    let epoch = gateway.epoch;
    let gateway = gateway.restart().await;
    assert!(gateway.epoch > epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_descriptors_are_found_out() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let talkers = talkers(&gateway, 20, Duration::from_millis(20)).await;
    let limit = |n: u32| {
        let pid = gateway.process_id().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={n}:")]).status();
        assert!(done.unwrap().success());
    };
    limit(200);
    let said = refused(&gateway, Path::new(env!("CARGO_BIN_EXE_tidegate"))).await;
    assert!(said.contains("the descriptor limit is too low"), "{said}");
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_with_too_few_descriptors_is_given_up() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let talkers = talkers(&gateway, 100, Duration::from_millis(40)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = wrapped(dir.path(), "short", "ulimit -n 60");
    everybody_goes_on(&talkers, 2).await;
    let said = refused(&gateway, &path).await;
    assert!(said.contains("descriptor"), "{said}");
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_process_that_is_stopped_for_a_while_goes_on() {
    let mut gateway = Gateway::start(patient(Options::new())).await;
    let talkers = talkers(&gateway, 20, Duration::from_millis(20)).await;
    everybody_goes_on(&talkers, 2).await;
    let http = gateway.http().patient();
    let dir = tempfile::tempdir().unwrap();
    let slow = slow(dir.path());
    let asked = tokio::spawn(async move { http.post("/v1/upgrade", &json!({ "binary": slow })).await });
    eventually("a new process", secs(30), || async { child_of(gateway.process_id()) }).await;
    gateway.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(2)).await;
    gateway.signal(Signal::SIGCONT);
    let reply = asked.await.unwrap();
    // Either way nobody is harmed.
    if reply.status == 200 {
        gateway.adopt(u32::try_from(reply.json()["pid"].as_u64().unwrap()).unwrap()).await;
    } else {
        assert_eq!(reply.status, 409, "{}", reply.text());
    }
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}
