//! A real Redis for tests, on an ephemeral port, gone with the value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Client, Keys};
use crate::config::{Durability, RedisConfig, Secret};

pub(crate) struct TestRedis {
    child: Child,
    port: u16,
    pub(crate) url: String,
    dir: tempfile::TempDir,
}

impl TestRedis {
    /// Nothing persisted.
    pub(crate) fn start() -> Self {
        Self::start_with("redis-server", &[])
    }

    /// Another server, or with other settings.
    pub(crate) fn start_with(binary: &str, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::spawn(binary, port, &dir, settings);
        Self { child, port, url: format!("redis://127.0.0.1:{port}"), dir }
    }

    fn spawn(binary: &str, port: u16, dir: &tempfile::TempDir, settings: &[&str]) -> Child {
        let child = Command::new(binary)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", dir.path().to_str().unwrap()])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is not installed; `./test` sets it up");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    /// Killed, and another server on the same port and in the same directory.
    pub(crate) fn restart_with(&mut self, binary: &str, settings: &[&str]) {
        self.stop();
        self.child = Self::spawn(binary, self.port, &self.dir, settings);
    }

    /// Killed, for good.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Frozen: connections stay open and nothing is answered.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Where it writes.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connected, at whatever level there is.
    pub(crate) async fn client(&self) -> Client {
        let client = self.connect(Durability { level: None, replicas: 1 }, Duration::from_secs(5), false);
        let mut link = client.link();
        tokio::time::timeout(Duration::from_secs(10), link.wait_for(|l| *l != super::Link::Down))
            .await
            .expect("connects")
            .unwrap();
        client
    }

    /// Connecting.
    pub(crate) fn connect(&self, durability: Durability, timeout: Duration, restored: bool) -> Client {
        let config = RedisConfig { url: Secret::new(&self.url), prefix: String::new(), timeout };
        Client::start(&config, durability, restored, CancellationToken::new()).unwrap()
    }

    /// Runs one command of these words over a connection of its own.
    pub(crate) async fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }

    pub(crate) fn keys() -> Keys {
        Keys::default()
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.stop();
    }
}
