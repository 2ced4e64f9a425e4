//! A real redis-server of the test's own. Nothing is persisted unless the test
//! says so, and then a restart is an empty one.

use std::net::TcpListener;
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
    args: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts one and waits for its PONG.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments, the last word on each setting.
    pub async fn start_with(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        // A port found free may be taken a moment later: another is tried then.
        for _ in 0..5 {
            let port = free_port();
            let mut redis = Self { port, args: args.clone(), dir: tempfile::tempdir().unwrap(), child: None };
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

    /// Ends the server at once; what it held is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts one that has all that `primary` has, and will get.
    pub async fn start_replica(primary: &Self) -> Self {
        let replica = Self::start_with(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]).await;
        let end = Instant::now() + START;
        while !replica.query::<String>(&["INFO", "replication"]).await.contains("master_link_status:up") {
            assert!(Instant::now() < end, "the replica does not get its copy");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        replica
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
        self.start_again().await;
    }

    /// Starts a server on the same port, with what was persisted, if anything.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        let end = Instant::now() + START;
        while !self.try_start_again().await {
            assert!(Instant::now() < end, "redis-server does not come back on port {}", self.port);
        }
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
            .args(&self.args)
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
