//! One run: rounds of a scenario, on the gateway and, in turn, on the floor.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Common;
use crate::ground::Side;
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::round::Round;
use crate::scenario::{Scenario, Stage};

/// The floor is only a floor if it is no slower than this many times a bare
/// loop of the same writes.
const FLOOR_OVER_RAW: f64 = 1.1;

/// Runs `scenario`; an error means that it could not be run.
pub(crate) fn run(common: &Common, scenario: &dyn Scenario) -> Result<Report> {
    let compares = common.compare.is_some();
    if compares && !scenario.has_floor() {
        bail!("{} has no floor to be compared with", scenario.name());
    }
    let limit = raise_descriptor_limit();
    let mut progress = Progress::new(common.quiet);
    progress.note(&format!("{}: {limit} descriptors", scenario.name()));
    let secret = scenario.wants_tokens().then(|| format!("{:032x}", fastrand::u128(..)));
    let mut gateway = Side::gateway(&common.ground, secret.clone())?;
    let mut floor = if compares { Some(Side::floor(&common.ground)?) } else { None };
    let mut settings: Vec<(String, String)> =
        scenario.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    settings.push(("gateway".to_owned(), gateway.what.clone()));
    if let Some(floor) = &floor {
        settings.push(("floor".to_owned(), floor.what.clone()));
    }
    settings.push(("machine".to_owned(), machine()));
    let rounds = common.rounds.unwrap_or(if compares { 5 } else { 1 });
    settings.push(("rounds".to_owned(), rounds.to_string()));
    let mut report = Report::new(scenario.name(), settings);
    let (mut ours, mut least) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        if number > 0 && scenario.wants_fresh() && !gateway.own.is_empty() {
            gateway = Side::gateway(&common.ground, secret.clone())?;
        }
        if number > 0
            && scenario.wants_fresh()
            && let Some(floor) = &mut floor
        {
            *floor = Side::floor(&common.ground)?;
        }
        let mut one = |side: &mut Side, into: &mut Vec<Round>| -> Result<()> {
            let mut stage = Stage {
                side,
                progress: &mut progress,
                first_user: common.first_user,
                opening: common.opening,
                nonce: nonce(number)?,
                compares,
            };
            into.push(scenario.round(&mut stage)?);
            Ok(())
        };
        // In turn, and not always in the same order.
        if number % 2 == 1 {
            one(&mut gateway, &mut ours)?;
        }
        if let Some(floor) = &mut floor {
            one(floor, &mut least)?;
        }
        if number % 2 == 0 {
            one(&mut gateway, &mut ours)?;
        }
    }
    report.take(ours, least);
    report.points = progress.into_points();
    report.limit(&common.limit);
    let raw = report.figures.iter().find(|figure| figure.name == "floorOverRawLoop");
    if let Some(spread) = raw.and_then(|figure| figure.floor)
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
