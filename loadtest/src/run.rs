//! One run: rounds of a scenario, on the gateway and, in turn, on the floor.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Common;
use crate::ground::{GroundArgs, Side};
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::round::Round;
use crate::scenario::{Compared, Comparison, Scenario, Stage};

/// The floor is only a floor if it is no slower than this many times a bare
/// loop of the same writes.
const FLOOR_OVER_RAW: f64 = 1.1;

/// Users of one round at most: nobody has a history from an earlier one.
const USERS: u64 = 1_000_000;

/// Runs `scenario`; an error means that it could not be run.
pub(crate) fn run(common: &Common, scenario: &dyn Scenario) -> Result<Report> {
    let compared = common.compare.map_or(Compared::Never, |with| scenario.compared(with));
    if compared == Compared::Never
        && let Some(with) = common.compare
    {
        bail!("{} is not compared with {with:?}", scenario.name());
    }
    let limit = raise_descriptor_limit();
    let mut progress = Progress::new(common.quiet);
    progress.note(&format!("{}: {limit} descriptors", scenario.name()));
    let secret = scenario.wants_tokens().then(|| format!("{:032x}", fastrand::u128(..)));
    let with = common.compare.filter(|_| compared == Compared::InTurn);
    let ground = GroundArgs { variables: scenario.variables(), ..common.ground.clone() };
    let mut sides = Sides::start(&ground, with, secret.as_deref())?;
    let rounds = common.rounds.unwrap_or(if common.compare.is_some() { 5 } else { 1 });
    let mut settings: Vec<(String, String)> =
        scenario.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for side in [Some(&sides.gateway), sides.other.as_ref()].into_iter().flatten() {
        settings.push((side.name.to_owned(), side.what.clone()));
    }
    settings.push(("machine".to_owned(), machine()));
    settings.push(("rounds".to_owned(), rounds.to_string()));
    let mut report = Report::new(scenario.name(), settings);
    let first_user = match common.first_user {
        Some(user) => user,
        None if common.ground.url.is_empty() => 1_000_000,
        // A gateway that runs already may remember those of an earlier run.
        None => 1_000_000_000 + u64::from(fastrand::u32(..)) * 10_000_000,
    };
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        if number > 0 && scenario.wants_fresh() && common.ground.url.is_empty() {
            sides = Sides::start(&ground, with, secret.as_deref())?;
        }
        let mut one = |side: &mut Side| -> Result<Round> {
            let mut stage = Stage {
                side: &mut *side,
                progress: &mut progress,
                first_user: first_user + u64::from(number) * USERS,
                opening: common.opening,
                nonce: nonce(number)?,
                compared: common.compare,
                watched: common.watched,
            };
            let outcome = scenario.round(&mut stage);
            match outcome {
                // Not for want of a run: the server is what failed.
                Err(error) if side.processes.sample().is_partial => {
                    let mut round = Round::default();
                    round.problem(format!("a server's process is gone: {error:#}"));
                    Ok(round)
                }
                outcome => outcome,
            }
        };
        // In turn, and not always in the same order.
        if number % 2 == 1 {
            ours.push(one(&mut sides.gateway)?);
        }
        if let Some(other) = &mut sides.other {
            others.push(one(other)?);
        }
        if number % 2 == 0 {
            ours.push(one(&mut sides.gateway)?);
        }
    }
    report.take(ours, others, sides.other.as_ref().map_or("", |side| side.name));
    report.points = progress.into_points();
    report.limit(&common.limit);
    let raw = report.figures.iter().find(|figure| figure.name == "floorOverRawLoop");
    if let Some(spread) = raw.and_then(|figure| figure.other)
        && spread.median > FLOOR_OVER_RAW
        && !common.limit.iter().any(|limit: &Limit| limit.figure == "floorOverRawLoop")
    {
        report.void.push(format!(
            "the floor costs {:.2} times a bare loop of send, above {FLOOR_OVER_RAW}",
            spread.median
        ));
    }
    Ok(report)
}

/// What takes turns.
struct Sides {
    gateway: Side,
    other: Option<Side>,
}

impl Sides {
    fn start(ground: &GroundArgs, with: Option<Comparison>, secret: Option<&str>) -> Result<Self> {
        let gateway = Side::gateway(ground, secret.map(str::to_owned))?;
        let other = match with {
            Some(Comparison::Floor) => Some(Side::floor(ground)?),
            Some(Comparison::OneWorker) => {
                let alone = GroundArgs { workers: Some(1), ..ground.clone() };
                Some(Self::simpler("oneWorker", &alone, secret)?)
            }
            Some(Comparison::WithoutPresence) => {
                let mut without = ground.clone();
                without.variables.push(("TIDEGATE_PRESENCE_ENABLED", "false"));
                Some(Self::simpler("withoutPresence", &without, secret)?)
            }
            Some(Comparison::Bare) | None => None,
        };
        Ok(Self { gateway, other })
    }

    /// The same gateway, of the run's own, told to be less.
    fn simpler(name: &'static str, ground: &GroundArgs, secret: Option<&str>) -> Result<Side> {
        if !ground.url.is_empty() {
            bail!("this comparison needs gateways of the run's own");
        }
        let mut side = Side::gateway(ground, secret.map(str::to_owned))?;
        side.name = name;
        Ok(side)
    }
}

/// Of one round; in clientMsgIds and group names.
fn nonce(round: u32) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?;
    Ok(format!("{:x}-{round}", now.as_millis()))
}

/// One descriptor per connection: as many as the system lets us have; says
/// how many that are.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    if soft < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => return hard,
            Err(error) => eprintln!("descriptor limit stays {soft}, {hard} not granted: {error}"),
        }
    }
    soft
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!("{cores} cores, Linux {}, load {load} at the start", read("/proc/sys/kernel/osrelease").trim())
}
