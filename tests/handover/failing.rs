//! Whatever fails before the commit costs the pause and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::json;

use crate::common::{Gateway, Options, Redis};
use crate::moving::{everybody_goes_on, settle, talkers};
use crate::patient;

/// A program that runs `impostor.py` with this plan.
pub(crate) fn impostor(dir: &Path, plan: &str) -> PathBuf {
    let impostor = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/handover/impostor.py");
    script(dir, &plan.replace(':', "-"), &format!("exec python3 {impostor} {plan} \"$@\""))
}

/// A program that does something of its own, and then is the gateway's.
pub(crate) fn wrapped(dir: &Path, name: &str, first: &str) -> PathBuf {
    script(dir, name, &format!("{first}\nexec {} \"$@\"", env!("CARGO_BIN_EXE_tidegate")))
}

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Asks for an upgrade that must fail; returns why it did.
pub(crate) async fn refused(gateway: &Gateway, binary: &Path) -> String {
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
    ("state:stop", "not in time"),
    ("state:abort", "has ended"),
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
    let path = wrapped(dir.path(), "invalid", "export TIDEGATE_WORKERS=0");
    let said = refused(&gateway, &path).await;
    assert!(said.contains("TIDEGATE_WORKERS"), "{said}");
    assert_eq!(gateway.http().get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_will_not_have_everything_gives_the_store_back() {
    let gateway = Gateway::start(patient(Options::new())).await;
    let dir = tempfile::tempdir().unwrap();
    let path = wrapped(dir.path(), "narrow", "export TIDEGATE_LIMITS_MAX_CONNECTIONS=5");
    let talkers = talkers(&gateway, 20, Duration::from_millis(20)).await;
    for _ in 0..3 {
        everybody_goes_on(&talkers, 2).await;
        let said = refused(&gateway, &path).await;
        assert!(said.contains("more connections than this process may have"), "{said}");
    }
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}
