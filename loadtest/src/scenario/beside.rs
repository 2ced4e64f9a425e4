//! A few pairs that talk at a rate while something else happens, on a thread
//! of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Stage;
use super::pairs::{Pairs, Plan};
use crate::progress::Progress;
use crate::round::Round;
use crate::swarm::{Opening, Swarm};

/// Users of the pairs begin this far behind the others'.
const APART: u64 = 500_000;
const PAIRS: u32 = 10;
const SIZE: usize = 64;
/// How often they look whether to go on.
const STRETCH: Duration = Duration::from_millis(100);

/// Talking pairs.
#[derive(Debug)]
pub(super) struct Beside {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Pairs>>,
}

impl Beside {
    /// Opens them, then lets them talk: `rate` messages per second in all.
    pub(super) fn start(stage: &Stage<'_>, rate: f64) -> Result<Self> {
        let first_user = stage.first_user + APART;
        let plan = Plan { pairs: PAIRS, size: SIZE, confirm: false };
        let mut pairs = Pairs::new(plan, &format!("{}-beside", stage.nonce), first_user, 0)?;
        let targets = stage.side.targets.clone();
        let mut swarm = Swarm::new()?;
        let request =
            |index: u32| Ok(targets.request(index, first_user + u64::from(index), None, false)?.into_bytes());
        Opening::new((0..2 * PAIRS).collect(), stage.opening, None)
            .run(&mut swarm, &targets, request)?
            .complete()?;
        pairs.connected();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut progress = Progress::new(true);
            while !stopped.load(Ordering::Relaxed) {
                pairs.talk(&mut progress, &mut swarm, Instant::now() + STRETCH, Some(rate), 1)?;
            }
            pairs.settle(&mut progress, &mut swarm)?;
            Ok(pairs)
        });
        Ok(Self { stop, thread })
    }

    /// Ends; adds what they saw.
    pub(super) fn finish(self, round: &mut Round) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut pairs = self.thread.join().map_err(|_| anyhow!("the pairs beside"))??;
        pairs.add_latencies(round, ["p2pStored", "p2pPush"]);
        pairs.judge(round);
        Ok(())
    }
}
