//! A client nobody here wrote the protocol code of: Python, its own WebSocket
//! and protobuf libraries, and code generated from `proto/`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Gateway, Options};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test]
async fn two_python_users_chat() {
    let python = environment();
    let generated = tempfile::tempdir().unwrap();
    run(Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I", "proto", "--python_out"])
        .arg(generated.path())
        .arg("tidegate/v1/envelope.proto")
        .current_dir(ROOT));

    let gateway = Gateway::start(Options::new()).await;
    run(Command::new(&python)
        .arg("tests/python/client.py")
        .arg(gateway.listen.to_string())
        .env("PYTHONPATH", generated.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(ROOT));
}

/// The interpreter of a virtual environment with the pinned requirements,
/// made once for each version of them.
fn environment() -> PathBuf {
    let requirements = Path::new(ROOT).join("tests/python/requirements.txt");
    let mut hasher = DefaultHasher::new();
    fs::read(&requirements).unwrap().hash(&mut hasher);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{:016x}", hasher.finish()));
    let (python, complete) = (dir.join("bin/python"), dir.join("complete"));
    if !complete.exists() {
        // What an interrupted set-up left is not trusted.
        let _ = fs::remove_dir_all(&dir);
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir));
        run(Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
                "-r",
            ])
            .arg(&requirements));
        fs::write(&complete, "").unwrap();
    }
    python
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot start {command:?} ({error}): run ./test once, it sets up what the tests need")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
