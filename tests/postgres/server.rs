//! A real PostgreSQL of the test's own, in a temporary directory.
//!
//! It refuses to run as root: then it runs as `nobody`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const START: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65_534;

/// One server; ended on drop.
pub(crate) struct Postgres {
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Makes an empty database and waits until it answers.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = dir.path().join("data");
        let done = unprivileged(&program("initdb"))
            .args(["-U", "tidegate", "-A", "trust", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "initdb");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, dir, child: None };
        server.start_again().await;
        server
    }

    /// Starts it again, with what it has.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        let mut child = unprivileged(&program("postgres"))
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(self.dir.path())
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + START;
        while self.connect().await.is_none() {
            assert!(child.try_wait().unwrap().is_none(), "PostgreSQL ended as it started");
            assert!(Instant::now() < end, "PostgreSQL does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.child = Some(child);
    }

    /// Ends it; whoever is connected is cut off.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
            let _ = child.wait();
        }
    }

    /// `postgres://…`
    pub(crate) fn url(&self) -> String {
        format!("postgres://tidegate@127.0.0.1:{}/postgres", self.port)
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `initdb` and `postgres` are not on the path where Debian puts them.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists());
    newest.max().unwrap_or_else(|| PathBuf::from(name))
}

fn unprivileged(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]).arg(program);
    command
}
