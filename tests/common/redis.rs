//! A real redis-server of the test's own: nothing persisted unless asked for,
//! so a restart is an empty one.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);

/// One server; killed on drop.
pub struct Redis {
    port: u16,
    dir: TempDir,
    /// Beyond what every server here is started with.
    options: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one and waits for its PONG.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with an append-only file, fsynced `always` or `everysec`.
    pub async fn start_durable(fsync: &str) -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", fsync]).await
    }

    /// Starts a copy of this one and waits until it has everything.
    pub async fn replica(&self) -> Self {
        let port = self.port.to_string();
        let options = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = Self::start_with(&options).await;
        super::eventually("the replica is in sync", START, || async {
            let info: String = replica.query(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        replica
    }

    /// Starts one with further options.
    pub async fn start_with(options: &[&str]) -> Self {
        // A port found free may be taken a moment later: another is tried then.
        for _ in 0..5 {
            let port = free_port();
            let options = options.iter().map(|&option| option.to_owned()).collect();
            let mut redis = Self { port, dir: tempfile::tempdir().unwrap(), options, child: None };
            if redis.try_start_again().await {
                return redis;
            }
        }
        panic!("redis-server does not come up");
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once; what it did not write is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Makes a replica fall behind from here on.
    pub async fn lag(&self) {
        let _: String = self.query(&["REPLICAOF", "127.0.0.1", "1"]).await;
    }

    /// Ends `primary` at once, and takes its place and address.
    pub async fn replace(&mut self, primary: &mut Self) {
        primary.stop();
        let _: String = self.query(&["REPLICAOF", "NO", "ONE"]).await;
        let _: String = self.query(&["CONFIG", "SET", "port", &primary.port.to_string()]).await;
        self.port = primary.port;
    }

    /// Starts an empty server on the same port.
    pub async fn start_empty(&mut self) {
        assert!(self.options.is_empty(), "this one may remember");
        self.start_again().await;
    }

    /// Starts the server again on the same port, with what it wrote.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        let end = Instant::now() + START;
        while !self.try_start_again().await {
            assert!(Instant::now() < end, "redis-server does not come back on port {}", self.port);
        }
    }

    /// Cuts `bytes` off the end of the append-only file, as a power cut does
    /// with what was not fsynced, and mends it as the README says: the half of
    /// a transaction that Redis would take back now, but leave in the file, it
    /// would run at its next start, over what was written since.
    pub fn cut_log(&self, bytes: u64) {
        assert!(self.child.is_none(), "stop it first");
        let newest: PathBuf = fs::read_dir(self.dir.path().join("appendonlydir"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .max()
            .expect("an append-only file");
        let file = fs::File::options().write(true).open(&newest).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
        let mut mend = Command::new("redis-check-aof")
            .arg("--fix")
            .arg(&newest)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-check-aof comes with redis-server");
        // It asks only where there is something to mend.
        let _ = mend.stdin.take().map(|mut answer| answer.write_all(b"y\n"));
        assert!(mend.wait().unwrap().success(), "the append-only file is mended");
    }

    /// Takes the place of `other`, which was stopped: serves on its port.
    pub async fn take_over(&mut self, other: &Self) {
        assert!(other.child.is_none(), "stop it first");
        let port = other.port.to_string();
        let _: () = self.query(&["CONFIG", "SET", "port", &port]).await;
        self.port = other.port;
    }

    /// Freezes the server: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Runs one command, given by its words.
    pub async fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        match self.try_query(words).await {
            Ok(value) => value,
            Err(error) => panic!("redis {words:?}: {error}"),
        }
    }

    async fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    async fn try_start_again(&mut self) -> bool {
        let port = self.port.to_string();
        let mut child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start redis-server ({error}): run ./test once, it sets up what the tests need")
            });
        let end = Instant::now() + START;
        while child.try_wait().unwrap().is_none() && Instant::now() < end {
            // The PONG may be of somebody else's server on the same port.
            let pid = self.try_query::<String>(&["INFO", "server"]).await.unwrap_or_default();
            if pid.contains(&format!("process_id:{}\r", child.id())) {
                self.child = Some(child);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("redis-server runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
