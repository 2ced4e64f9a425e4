//! The program, and a second one of another build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::Gateway;

/// A program, and the build it says it is.
pub(crate) struct Build {
    pub(crate) path: PathBuf,
    pub(crate) id: String,
}

/// What `gateway` was started from, and a copy in `dir` that was built from
/// something else as far as anybody can see.
pub(crate) async fn two(gateway: &Gateway, dir: &Path) -> [Build; 2] {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    let status = gateway.http().get("/v1/status").await.json();
    let id = status["build"].as_str().unwrap().to_owned();
    let other = Build { path: dir.join("tidegate"), id: id.chars().rev().collect() };
    assert_ne!(other.id, id);
    fs::copy(&path, &other.path).unwrap();
    // As long as the first one, so every byte stays where it is.
    let replace = format!("s/{id}/{}/g", other.id);
    let done = Command::new("sed").env("LC_ALL", "C").args(["-i", &replace]).arg(&other.path).status();
    assert!(done.unwrap().success());
    [Build { path, id }, other]
}

/// A hot restart to `build`, which must succeed and be seen in the answer and
/// in the status; returns what is said of it.
pub(crate) async fn upgrade(gateway: &mut Gateway, build: &Build) -> Value {
    let before = gateway.process_id();
    let body = json!({ "binary": build.path });
    let report = gateway.http().patient().post("/v1/upgrade", &body).await.success().json();
    let pid = u32::try_from(report["pid"].as_u64().unwrap()).unwrap();
    gateway.adopt(pid).await;
    let status = gateway.http().get("/v1/status").await.json();
    assert_eq!((&status["pid"], &status["build"]), (&report["pid"], &build.id.as_str().into()));
    assert_eq!(report["build"], build.id);
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), build.path);
    assert_ne!(pid, before);
    report
}
