//! A redis-server of the run's own: nothing persisted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const TRIES: usize = 5;

/// A running server; killed on drop.
#[derive(Debug)]
pub(crate) struct OwnRedis {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl OwnRedis {
    /// Starts one and waits for its PONG.
    pub(super) fn start() -> Result<Self> {
        // A port found free may be taken a moment later: another is tried then.
        for _ in 0..TRIES {
            if let Some(redis) = Self::try_start()? {
                return Ok(redis);
            }
        }
        bail!("redis-server does not come up");
    }

    fn try_start() -> Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let dir = tempfile::Builder::new().prefix("tidegate-load-redis-").tempdir()?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting redis-server")?;
        let mut redis = Self { port, child, _dir: dir };
        let end = Instant::now() + START;
        while Instant::now() < end {
            if redis.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if redis.answers().is_ok_and(|answers| answers) {
                return Ok(Some(redis));
            }
            std::thread::sleep(POLL);
        }
        Ok(None)
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut stream = self.connect()?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    }

    /// Times it has read something from somebody: a pipelined round trip is
    /// one, unless it is a large one.
    pub(crate) fn reads(&self) -> Result<u64> {
        const NAME: &str = "total_reads_processed:";
        let stream = self.connect()?;
        (&stream).write_all(b"INFO stats\r\n")?;
        for line in BufReader::new(stream).lines() {
            if let Some(reads) = line?.strip_prefix(NAME) {
                return Ok(reads.parse()?);
            }
        }
        bail!("redis-server does not say how much it has read")
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(stream)
    }

    /// `redis://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
