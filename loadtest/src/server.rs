//! What the gateways under test cost, from `/proc`. They must run on this
//! machine; who they are is asked of their admin address.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// `/proc/<pid>/stat` counts in 1/100 s on every Linux of today.
const TICK: Duration = Duration::from_millis(10);
const STATUS: Duration = Duration::from_secs(5);

/// The processes under test.
#[derive(Debug)]
pub(crate) struct Servers {
    all: Vec<(String, u32)>,
}

/// Sums over all processes at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    cpu: Duration,
    /// Anonymous resident memory, bytes.
    pub(crate) memory: u64,
}

/// Between two samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// User and system time.
    pub(crate) cpu: Duration,
    wall: Duration,
}

impl Servers {
    /// Asks each admin address for its process.
    pub(crate) async fn find(admins: &[String]) -> Result<Self> {
        let mut all = Vec::with_capacity(admins.len());
        for admin in admins {
            let status = status(admin).await.with_context(|| format!("status of {admin}"))?;
            let pid = status.get("pid").and_then(Value::as_u64).context("status without pid")?;
            all.push((admin.clone(), u32::try_from(pid)?));
        }
        Ok(Self { all })
    }

    /// The figures now.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let mut sample = Sample { at: Instant::now(), cpu: Duration::ZERO, memory: 0 };
        for (_, pid) in &self.all {
            let read = |name: &str| {
                let path = format!("/proc/{pid}/{name}");
                std::fs::read_to_string(&path).context(path)
            };
            sample.cpu += cpu(&read("stat")?).context("stat of the server")?;
            sample.memory += memory(&read("status")?).context("status of the server")?;
        }
        Ok(sample)
    }

    /// Connections by their own count.
    pub(crate) async fn connections(&self) -> Result<u64> {
        let mut sum = 0;
        for (admin, _) in &self.all {
            let status = status(admin).await?;
            sum += status.get("connections").and_then(Value::as_u64).context("status without connections")?;
        }
        Ok(sum)
    }

    /// Waits until at most `most` connections are left; how many are in the
    /// end.
    pub(crate) async fn settle(&self, most: u64, within: Duration) -> Result<u64> {
        let end = Instant::now() + within;
        loop {
            let left = self.connections().await?;
            if left <= most || Instant::now() >= end {
                return Ok(left);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Sample {
    /// What was spent since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Cost {
        Cost { cpu: self.cpu.saturating_sub(earlier.cpu), wall: self.at - earlier.at }
    }
}

impl Cost {
    /// Cores kept busy.
    pub(crate) fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

async fn status(admin: &str) -> Result<Value> {
    let answer = timeout(STATUS, async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = answer.await.context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    Ok(serde_json::from_str(body)?)
}

/// utime and stime: the 12th and 13th field behind the process's name, which
/// may itself hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(TICK * user + TICK * system)
}

fn memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(memory("VmRSS:\t9 kB\nRssAnon:\t    12 kB\n"), Some(12 * 1024));
    }
}
