//! What a storage engine costs a gateway: durable commits of small batches
//! beside the bare append they cannot beat, and how long a full data
//! directory takes to close and to open.
//!
//! Every message is what the store writes for it: a row of 220 bytes under
//! (conversation, seq), and one under which its sender's id is found again.

mod engine;
mod fjall_engine;
mod floor;
mod redb_engine;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::engine::{Engine, Message};

const CONVERSATIONS: u64 = 2_000;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A file, appended to and synced.
    Floor,
    /// Log-structured.
    Fjall,
    /// A copy-on-write B-tree.
    Redb,
}

#[derive(Debug, Parser)]
struct Arguments {
    engine: Kind,
    /// An empty directory, on the disk that is to be measured.
    dir: PathBuf,
    /// Messages per commit.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Stop after this long.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Write this many MiB of messages instead, then close and open.
    #[arg(long)]
    fill: Option<u64>,
    /// Only open and close what is there.
    #[arg(long)]
    reopen: bool,
    /// Flush what is in memory, still serving, before the close.
    #[arg(long)]
    prepare: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let mut engine = open(&arguments)?;
    let opened = started.elapsed();
    let mut numbers =
        Numbers { random: fastrand::Rng::with_seed(7), tops: vec![0; usize::try_from(CONVERSATIONS)?] };
    let mut count = 0_u64;
    if !arguments.reopen {
        let began = Instant::now();
        let before = cpu()?;
        let end = arguments.fill.map(|mib| mib * (1 << 20) / 220);
        while end.map_or(began.elapsed().as_secs_f64() < arguments.seconds, |end| count < end) {
            let batch: Vec<Message> = (0..arguments.batch).map(|_| numbers.next()).collect();
            engine.commit(&batch)?;
            count += u64::try_from(batch.len())?;
        }
        let took = began.elapsed().as_secs_f64();
        #[allow(clippy::as_conversions)] // For people to read.
        let messages = count as f64;
        let used = (cpu()? - before).as_secs_f64();
        println!(
            "{:?} batch {}: {:.0} messages/s, {:.1} µs of CPU each, {:.0} bytes written each",
            arguments.engine,
            arguments.batch,
            messages / took,
            used * 1e6 / messages,
            written()? / messages,
        );
    }
    println!("RssAnon {} KiB", rss()?);
    if arguments.prepare {
        let started = Instant::now();
        engine.prepare()?;
        println!("prepare {:?}", started.elapsed());
        // What a gateway stores between preparing and closing.
        for _ in 0..100 {
            let batch: Vec<Message> = (0..16).map(|_| numbers.next()).collect();
            engine.commit(&batch)?;
        }
    }
    let started = Instant::now();
    drop(engine);
    println!("open {opened:?}, close {:?}", started.elapsed());
    if !arguments.reopen && arguments.fill.is_some() {
        let started = Instant::now();
        let engine = open(&arguments)?;
        let opened = started.elapsed();
        println!("open again {opened:?}, RssAnon {} KiB", rss()?);
        drop(engine);
    }
    Ok(())
}

fn open(arguments: &Arguments) -> Result<Box<dyn Engine>> {
    Ok(match arguments.engine {
        Kind::Floor => Box::new(floor::Floor::open(&arguments.dir)?),
        Kind::Fjall => Box::new(fjall_engine::Fjall::open(&arguments.dir)?),
        Kind::Redb => Box::new(redb_engine::Redb::open(&arguments.dir)?),
    })
}

struct Numbers {
    random: fastrand::Rng,
    tops: Vec<u64>,
}

impl Numbers {
    fn next(&mut self) -> Message {
        let conversation = self.random.u64(..CONVERSATIONS);
        let mut seq = 0;
        if let Some(top) = usize::try_from(conversation).ok().and_then(|at| self.tops.get_mut(at)) {
            *top += 1;
            seq = *top;
        }
        let mut body = [0; 220];
        self.random.fill(&mut body);
        Message { conversation, seq, id: self.random.u128(..), body }
    }
}

fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks: u64 = stat.split_whitespace().skip(13).take(2).map(|n| n.parse().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn field(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0))
}

fn rss() -> Result<u64> {
    field("/proc/self/status", "RssAnon:")
}

fn written() -> Result<f64> {
    #[allow(clippy::as_conversions)] // For people to read.
    Ok(field("/proc/self/io", "write_bytes:")? as f64)
}
