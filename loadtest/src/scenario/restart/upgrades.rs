//! The hot restarts: asked for, waited for, and held against what they say.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::text::{CHUNKS, chunk};
use super::{COMING_AND_GOING, LEAST, Stage, range, share};
use crate::admin::Admin;
use crate::numbers::float;
use crate::process::{self, Processes};
use crate::round::Round;

/// How long the old process may take to end.
const PARTING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Users of one push.
const USERS: usize = 1_000;

/// One that is under way, on a thread of its own.
pub(super) struct Asked {
    thread: JoinHandle<Result<Upgrade>>,
}

/// What became of it.
pub(super) struct Upgrade {
    report: Value,
    took: Duration,
    /// Of the new process, once the old one has ended.
    descriptors: Option<usize>,
}

impl Asked {
    /// Fills the outboxes of `slow` users, then asks for hot restart `number`.
    pub(super) fn start(
        stage: &Stage<'_>,
        slow: Vec<u64>,
        number: u32,
        binary: Option<PathBuf>,
    ) -> Result<Self> {
        let admin = stage.side.admin()?.clone();
        let everybody = stage.side.admins.clone();
        let thread = std::thread::spawn(move || {
            for n in 0..CHUNKS {
                for users in slow.chunks(USERS) {
                    let body =
                        json!({"target": {"users": users}, "topic": "chunk", "payload": chunk(number, n)});
                    let sent: Value =
                        serde_json::from_str(&admin.request("POST", "/v1/push", &body.to_string())?)?;
                    if sent.get("online").and_then(Value::as_u64) != u64::try_from(users.len()).ok() {
                        bail!("not all slow readers are online: {sent}");
                    }
                }
            }
            let mut upgrade = ask(&admin, binary)?;
            // The others are only looked at.
            for other in everybody.iter().skip(1) {
                other.status()?;
            }
            upgrade.descriptors = upgrade.pid().and_then(process::descriptors);
            Ok(upgrade)
        });
        Ok(Self { thread })
    }

    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub(super) fn finish(self) -> Result<Upgrade> {
        self.thread.join().map_err(|_| anyhow!("the one who asked"))?
    }
}

/// Asks, waits until the old process has ended, and looks at the new one.
fn ask(admin: &Admin, binary: Option<PathBuf>) -> Result<Upgrade> {
    let before = pid_of(&admin.status()?)?;
    let body = binary.map_or_else(|| json!({}), |path| json!({ "binary": path }));
    let started = Instant::now();
    let answer = admin.request("POST", "/v1/upgrade", &body.to_string())?;
    let took = started.elapsed();
    let report: Value = serde_json::from_str(&answer)?;
    let end = Instant::now() + PARTING;
    while process::runs(before) {
        if Instant::now() > end {
            bail!("process {before} has handed over and does not end");
        }
        std::thread::sleep(POLL);
    }
    let status = admin.status()?;
    if pid_of(&status)? == before || status.get("pid") != report.get("pid") {
        bail!("the status names process {:?}, the answer {report}", status.get("pid"));
    }
    if status.get("build") != report.get("build") {
        bail!("the status names build {:?}, the answer {report}", status.get("build"));
    }
    Ok(Upgrade { report, took, descriptors: None })
}

fn pid_of(status: &Value) -> Result<u32> {
    Ok(u32::try_from(status.get("pid").and_then(Value::as_u64).context("status without pid")?)?)
}

impl Upgrade {
    fn number(&self, name: &str) -> f64 {
        float(self.report.get(name).and_then(Value::as_u64).unwrap_or_default())
    }

    fn pid(&self) -> Option<u32> {
        pid_of(&self.report).ok()
    }
}

/// All of a round.
#[derive(Default)]
pub(super) struct Upgrades {
    all: Vec<Upgrade>,
}

impl Upgrades {
    /// Takes one down; `processes` are from now on those that run.
    pub(super) fn take(&mut self, upgrade: Result<Upgrade>, processes: &mut Processes, round: &mut Round) {
        match upgrade {
            Ok(upgrade) => {
                let before = self.newest();
                processes.replace(before, upgrade.pid());
                self.all.push(upgrade);
            }
            Err(error) => round.problem(format!("a hot restart failed: {error:#}")),
        }
    }

    /// The process that serves now, if one has taken over.
    pub(super) fn newest(&self) -> Option<u32> {
        self.all.last().and_then(Upgrade::pid)
    }

    /// Adds the figures, and what was wrong.
    pub(super) fn judge(&self, round: &mut Round, wanted: u32) {
        let all = |of: &dyn Fn(&Upgrade) -> f64| -> Vec<f64> { self.all.iter().map(of).collect() };
        let number = |name: &'static str| all(&move |upgrade| upgrade.number(name));
        let part = |name: &'static str| {
            range(&all(&move |upgrade| share(upgrade.number(name), upgrade.number("moved")))).0
        };
        let pauses = number("pauseMs");
        round.add("upgrades", float(u64::try_from(self.all.len()).unwrap_or(u64::MAX)));
        round.add("pauseMaxMs", range(&pauses).1);
        round.add("pauseMedianMs", crate::numbers::median(&pauses));
        round.add("upgradeMaxMs", range(&all(&|upgrade| super::millis(upgrade.took))).1);
        round.add("movedLeast", range(&number("moved")).0);
        let drained: f64 = number("drained").iter().sum();
        round.add("drained", drained);
        let (mid_frame, unsent) = (part("midFrame"), part("withUnsent"));
        round.add("midFrameShareLeast", mid_frame);
        round.add("withUnsentShareLeast", unsent);
        let open = self.all.iter().filter_map(|upgrade| u64::try_from(upgrade.descriptors?).ok());
        let open: Vec<f64> = open.map(float).collect();
        let (least, most) = range(&open);
        round.add("descriptorsMost", most);
        round.add("descriptorsSpread", most - least);
        if u32::try_from(self.all.len()) != Ok(wanted) {
            round.problem(format!("{} hot restarts of {wanted}", self.all.len()));
        }
        if drained > 0.0 {
            round.problem(format!("{drained} connections stayed behind"));
        }
        for (what, share) in [("in the middle of a message", mid_frame), ("with unsent bytes", unsent)] {
            if share < LEAST {
                round.problem(format!("only {:.1} % of the connections moved {what}", share * 100.0));
            }
        }
        if most - least > COMING_AND_GOING {
            round.problem(format!("descriptors from generation to generation: {open:?}"));
        }
    }
}
