//! Every metric moves when what it counts happens, and no other time will do:
//! a number nobody saw move is a number nobody can trust.
//!
//! Each area names its series in constants and waits for them by those
//! constants; [`every_series_is_accounted_for`] holds the constants against
//! what a gateway exposes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod accepting;
mod bus;
mod census;
mod closes;
mod copies;
mod frames;
mod groups;
mod handovers;
mod messages;
mod outages;
mod presence;
mod readers;
mod reconciles;
mod retention;
mod scrape;

use std::collections::BTreeSet;

use common::{Gateway, Options, Redis};
use scrape::{Metrics, Series, name_of};

/// What some test here has seen move.
const MOVED: &[&[Series]] = &[
    accepting::SHED,
    accepting::ERRORS,
    accepting::HANDSHAKES,
    closes::BY_CLIENTS,
    closes::BY_TIME,
    closes::BY_OPERATORS,
    closes::AUTH_FAILURES,
    frames::FRAMES,
    frames::GAUGES,
    messages::MESSAGES,
    messages::EMBEDDED,
    messages::DISK,
    messages::REFUSED,
    messages::GAUGES,
    copies::COPIES,
    copies::GAUGES,
    copies::SLOW,
    readers::BEHIND,
    readers::HOLED,
    groups::MEMBERS,
    groups::BUSY,
    bus::CROSSING,
    bus::FORGED,
    bus::FULL,
    reconciles::CAUSES,
    outages::WELL,
    outages::ILL,
    outages::BACK,
    outages::GAUGES,
    outages::LEASE,
    outages::STOLEN,
    outages::HANGING,
    outages::RAISED,
    outages::UNCONFIRMED,
    retention::RETENTION,
    census::EVENTS,
    census::TIMED,
    census::GAUGES,
    census::AWAY,
    census::LATE,
    census::BROKEN,
    presence::GAUGES,
    presence::ONLINE,
    presence::WATCHING,
    handovers::HANDOVERS,
    handovers::DRAINED,
];

/// What no test here moves, and why not.
const UNMOVED: &[(Series, &str)] = &[
    ("tidegate_connections_closed_total{reason=internal}", "no code path ends a connection so"),
    ("tidegate_connections_closed_total{reason=overload}", "no code path ends a connection so"),
    ("tidegate_connections_closed_total{reason=resync}", "no code path ends a connection so"),
    (
        "tidegate_connections_closed_total{reason=superseded}",
        "the process ends as soon as the last connection has: nobody can look",
    ),
    (
        "tidegate_presence_dropped_total{reason=queue_full}",
        "it takes tens of thousands of users within a second while Redis is away",
    ),
    ("tidegate_frames_total{direction=in,kind=push}", "a push from a client counts as other"),
    ("tidegate_frames_total{direction=out,kind=send}", "a gateway sends no sends"),
    (
        "tidegate_route_operations_total{operation=bind,result=refused}",
        "the store dates a first bind after the one it replaces",
    ),
    ("tidegate_daily_dropped_total{reason=people_full}", "4000000 people of one day"),
    ("tidegate_daily_dropped_total{reason=queue_full}", "200000 people during an outage"),
    ("tidegate_route_operations_total{operation=query,result=refused}", "a query refuses nothing"),
];

/// These come into being with their first count.
const ON_DEMAND: &[&str] = &["tidegate_auth_failures_total"];

#[tokio::test]
async fn every_series_is_accounted_for() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(Options::cluster(&redis, "gw-a")).await;
    let now = Metrics::of(&gateway).await.now().await;
    let exposed = now.series();

    let known: Vec<&str> =
        MOVED.iter().flat_map(|area| area.iter().copied()).chain(UNMOVED.iter().map(|(s, _)| *s)).collect();
    let unique: BTreeSet<&str> = known.iter().copied().collect();
    for series in UNMOVED.iter().map(|(series, _)| series) {
        assert_eq!(known.iter().filter(|known| known == &series).count(), 1, "{series} does move");
    }
    let unseen: Vec<_> = exposed.difference(&unique).collect();
    assert!(unseen.is_empty(), "exposed, and never seen to move: {unseen:#?}");
    // A histogram is exposed once it has a sample.
    let late =
        |series: &&&str| ON_DEMAND.contains(&name_of(series)) || name_of(series).ends_with("_seconds_count");
    let gone: Vec<_> = unique.difference(&exposed).filter(|series| !late(series)).collect();
    assert!(gone.is_empty(), "no longer exposed: {gone:#?}");

    let names: BTreeSet<&str> =
        unique.iter().map(|series| name_of(series).trim_end_matches("_count")).collect();
    let unasked: Vec<String> =
        registered().into_iter().filter(|name| !names.contains(name.as_str())).collect();
    assert!(unasked.is_empty(), "registered, and never seen to move: {unasked:?}");
    assert_eq!(now.get("tidegate_build_info"), 1.0);
}

/// Every name in the files that register metrics.
fn registered() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let source = read("metrics.rs") + &read("presence.rs");
    let texts = source.split('"').filter(|text| text.starts_with("tidegate_"));
    let names: BTreeSet<String> = texts.map(str::to_owned).collect();
    assert!(names.len() > 30, "{names:?}");
    names
}
