//! The gateway's append script, called by a client that does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl::set_timerslack;
use redis::{Cmd, Connection, Script, cmd, pipe};
use tidegate::internal::APPEND_TEXT;

use super::Bare;
use crate::latency::Latencies;
use crate::numbers::float;

/// As the gateway keeps ids, seconds.
const DEDUP_S: u64 = 14 * 24 * 3600;
/// Connections that take turns, so that Redis has work while one of them
/// reads its answers.
const CONNECTIONS: u64 = 2;
/// How often a probe calls: a load of its own of one or two per cent.
const PROBE_EVERY: Duration = Duration::from_millis(2);

/// Calls on conversations nobody else uses.
struct Caller {
    connection: Connection,
    sha: String,
    first: u64,
    conversations: u64,
    message: Vec<u8>,
    made: u64,
}

impl Caller {
    fn new(url: &str, first: u64, conversations: u64, size: usize) -> Result<Self> {
        let mut connection = redis::Client::open(url)?.get_connection().context("connecting to Redis")?;
        let script = Script::new(APPEND_TEXT);
        cmd("SCRIPT").arg("LOAD").arg(APPEND_TEXT).exec(&mut connection).context("loading the script")?;
        let message = vec![b'x'; size];
        let sha = script.get_hash().to_owned();
        Ok(Self { connection, sha, first, conversations: conversations.max(1), message, made: 0 })
    }

    /// One message, each time to another conversation.
    fn call(&mut self) -> Cmd {
        let user = self.first + 2 * (self.made % self.conversations);
        let conversation = format!("p2p:{user}:{}", user + 1);
        let key = |part: &str| format!("{{c:{conversation}}}:{part}");
        let mut call = cmd("EVALSHA");
        call.arg(&self.sha).arg(6);
        for part in ["log", "meta", "dedup:1", "dedup:0", "dedup:2", "blacklist"] {
            call.arg(key(part));
        }
        call.arg(DEDUP_S).arg("bare").arg(user).arg(format!("bare-{:x}-{}", self.first, self.made));
        call.arg("0123456789abcdef").arg(7_123_456_789_012_345_678_u64 + self.made);
        call.arg(1_790_000_000_000_u64).arg(self.message.as_slice());
        self.made += 1;
        call
    }
}

/// For `span`: `depth` calls per round trip, over `conversations`
/// conversations.
pub(crate) fn pipelined(
    url: &str,
    conversations: u64,
    depth: u64,
    size: usize,
    span: Duration,
) -> Result<Bare> {
    let first = first_user()?;
    let threads: Vec<JoinHandle<Result<(u64, Latencies)>>> = (0..CONNECTIONS)
        .map(|number| {
            let url = url.to_owned();
            let share = (conversations / CONNECTIONS).max(1);
            std::thread::spawn(move || {
                let mut caller = Caller::new(&url, first + 10_000_000 * number, share, size)?;
                let (mut stored, mut latencies, begin) = (0, Latencies::default(), Instant::now());
                while begin.elapsed() < span {
                    let mut calls = pipe();
                    for _ in 0..depth.max(1) {
                        calls.add_command(caller.call());
                    }
                    let from = Instant::now();
                    let answers: Vec<redis::Value> =
                        calls.query(&mut caller.connection).context("the script")?;
                    latencies.record(from.elapsed());
                    stored += u64::try_from(answers.len())?;
                }
                Ok((stored, latencies))
            })
        })
        .collect();
    let mut bare = Bare::default();
    for thread in threads {
        let (stored, latencies) = thread.join().map_err(|_| anyhow!("a bare client"))??;
        bare.per_second += float(stored) / span.as_secs_f64();
        bare.latencies.add(&latencies)?;
    }
    Ok(bare)
}

/// One call at a time, 500 a second, beside other load.
#[derive(Debug)]
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Probed>>,
}

/// What a probe saw.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    /// How long each call took, from when it was due.
    pub(crate) calls: Latencies,
    /// How much of that was the probe's own: from when it was due to when it
    /// was made, unless the one before took that long.
    pub(crate) late: Latencies,
}

impl Probe {
    /// Begins to call.
    pub(crate) fn start(url: &str, size: usize) -> Result<Self> {
        let mut caller = Caller::new(url, first_user()?, 1_000, size)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Woken on time, as who sends by the swarm's timer is.
            set_timerslack(1).context("timer")?;
            let (mut probed, mut due) = (Probed::default(), Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let left = due.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    std::thread::sleep(left);
                    probed.late.record(due.elapsed());
                }
                caller.call().exec(&mut caller.connection).context("the script")?;
                probed.calls.record(due.elapsed());
                due += PROBE_EVERY;
            }
            Ok(probed)
        });
        Ok(Self { stop, thread })
    }

    /// Ends.
    pub(crate) fn finish(self) -> Result<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("a probe"))?
    }
}

/// Differs from run to run, so that every conversation is new.
fn first_user() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?;
    Ok(1_000_000_000_000 + 1_000 * (u64::try_from(now.as_millis())? % 1_000_000_000))
}
