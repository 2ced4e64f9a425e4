//! Whatever fails before the commit costs the pause and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Gateway, Options, Redis, eventually, secs};
use crate::moving::{everybody_goes_on, settle, talkers};
use crate::talker::patient;

/// A program that runs `impostor.py` with this plan.
fn impostor(dir: &Path, plan: &str) -> PathBuf {
    let path = dir.join(plan.replace(':', "-"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/handover/impostor.py");
    fs::write(&path, format!("#!/bin/sh\nexec python3 {script} {plan} \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Asks for an upgrade that must fail; returns why it did.
async fn refused(gateway: &Gateway, binary: &Path) -> String {
    let reply = gateway.http().patient().post("/v1/upgrade", &json!({ "binary": binary })).await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/problem+json");
    reply.json()["detail"].as_str().unwrap().to_owned()
}

/// Everybody talks while one upgrade after the other fails as planned.
async fn all_fail(options: Options, plans: &[(&str, &str)]) {
    // Long enough for every step on a busy machine, and waited for by those that
    // hang.
    let options = patient(options).env("TIDEGATE_HANDOVER_PAUSE", "8s");
    let mut gateway = Gateway::start(options).await;
    let dir = tempfile::tempdir().unwrap();
    let talkers = talkers(&gateway, 40, Duration::from_millis(20)).await;
    for (plan, why) in plans {
        everybody_goes_on(&talkers, 2).await;
        let started = Instant::now();
        let said = refused(&gateway, &impostor(dir.path(), plan)).await;
        assert!(said.contains(why), "{plan}: {said}");
        println!("{plan}: {said} ({:?})", started.elapsed());
    }
    everybody_goes_on(&talkers, 2).await;
    // And after all that it still can.
    let report = gateway.upgrade().await;
    assert_eq!((&report["moved"], &report["drained"]), (&40.into(), &0.into()));
    everybody_goes_on(&talkers, 2).await;
    assert!(settle(talkers).await > 200);
}

const PLANS: &[(&str, &str)] = &[
    ("start:die", "has ended"),
    ("start:garbage", "unexpected"),
    ("welcome:die", "has ended"),
    ("welcome:refuse", "I do not feel like it"),
    ("old", "state formats"),
    ("new", "state formats"),
    ("elsewhere", "listen is configured otherwise"),
    ("ready:die", "has ended"),
    ("sockets:die", "has ended"),
    ("sockets:hang", "not in time"),
    ("cut:die", "has ended"),
    ("cut:hang", "not in time"),
    ("state:die", "has ended"),
    ("state:hang", "not in time"),
    ("state:garbage", "unexpected"),
    ("state:refuse", "I do not feel like it"),
    ("count", "unexpected"),
    ("digest", "unexpected"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_anywhere_changes_nothing_on_the_embedded_store() {
    all_fail(Options::new(), PLANS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_anywhere_changes_nothing_on_redis() {
    let redis = Redis::start().await;
    // A mark that never comes ends it before the state is sent.
    let plans: Vec<_> = PLANS
        .iter()
        .map(|(plan, why)| match plan.split(':').next() {
            Some("state" | "count" | "digest") => (*plan, "not in time"),
            _ => (*plan, *why),
        })
        .filter(|(plan, _)| !plan.starts_with("state:") || *plan == "state:die")
        .collect();
    all_fail(Options::cluster(&redis, "gw-1"), &plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_be_used_is_found_out_before_anything_changes() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let dir = tempfile::tempdir().unwrap();
    let said = refused(&gateway, &dir.path().join("nothing")).await;
    assert!(said.contains("No such file"), "{said}");
    let said = refused(&gateway, Path::new("/bin/false")).await;
    assert!(said.contains("serve --check"), "{said}");
    let relative = gateway.http().post("/v1/upgrade", &json!({ "binary": "tidegate" })).await;
    assert_eq!(relative.status, 400, "{}", relative.text());
    let path = dir.path().join("invalid");
    fs::write(
        &path,
        format!("#!/bin/sh\nTIDEGATE_WORKERS=0 exec {} \"$@\"\n", env!("CARGO_BIN_EXE_tidegate")),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let said = refused(&gateway, &path).await;
    assert!(said.contains("TIDEGATE_WORKERS"), "{said}");
    assert_eq!(gateway.http().get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_will_not_have_everything_gives_the_store_back() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("narrow");
    let script = format!(
        "#!/bin/sh\nTIDEGATE_LIMITS_MAX_CONNECTIONS=5 exec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_tidegate")
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let talkers = talkers(&gateway, 20, Duration::from_millis(20)).await;
    for _ in 0..3 {
        everybody_goes_on(&talkers, 2).await;
        let said = refused(&gateway, &path).await;
        assert!(said.contains("more connections than this process may have"), "{said}");
    }
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}

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
    let asked = tokio::spawn(async move { http.post("/v1/upgrade", &json!({})).await });
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
    let asked = tokio::spawn(async move { http.try_post("/v1/upgrade", &json!({})).await });
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
