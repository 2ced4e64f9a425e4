//! A real Redis for tests, on an ephemeral port, gone with the value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Client, Keys};
use crate::config::{RedisConfig, Secret};

pub(crate) struct TestRedis {
    child: Child,
    pub(crate) url: String,
    _dir: tempfile::TempDir,
}

impl TestRedis {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", dir.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed; `./test` sets it up");
        let redis = Self { child, url: format!("redis://127.0.0.1:{port}"), _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    pub(crate) async fn client(&self) -> Client {
        let config = RedisConfig {
            url: Secret::new(&self.url),
            prefix: String::new(),
            timeout: Duration::from_secs(5),
        };
        let client = Client::start(&config, CancellationToken::new()).unwrap();
        let mut link = client.link();
        tokio::time::timeout(Duration::from_secs(10), link.wait_for(|l| *l != super::Link::Down))
            .await
            .expect("connects")
            .unwrap();
        client
    }

    pub(crate) fn keys() -> Keys {
        Keys::default()
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
