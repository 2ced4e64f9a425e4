//! Every scenario for two seconds, at small size, against a gateway of its
//! own: the verdict, the exit code and what is written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod tool;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tool::{Run, html};

/// Kept, and nothing but that.
fn kept(line: &str) -> Value {
    let run = Run::of(line);
    assert_eq!(run.code, 0, "{line}: {}", run.output);
    let report = run.json();
    assert_eq!(report["verdict"], "kept");
    report
}

/// Kept, and the history checker has seen messages.
fn checked(line: &str) -> Value {
    let report = kept(line);
    assert!(report["checked"]["acked"].as_u64().unwrap() > 0, "{report}");
    assert!(report["checked"]["received"].as_u64().unwrap() > 0, "{report}");
    report
}

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name]["gateway"]["median"].as_f64().unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn connect_shows_tokens() {
    let report = kept("connect --connections 300");
    assert!(figure(&report, "connectionsPerSecond") > 0.0);
    assert!(figure(&report, "cpuUsPerConnection") > 0.0);
}

#[test]
fn idle_counts_bytes() {
    let report = kept("idle --connections 400 --hold 2 --conversations 4 --after 0.1");
    assert!(figure(&report, "bytesPerConnection") > 0.0);
}

#[test]
fn heartbeat_counts_from_when_each_was_due() {
    let report = kept("heartbeat --connections 200 --rate 2000 --duration 2");
    assert!(figure(&report, "echoesPerSecond") > 1_500.0, "{report}");
    assert!(figure(&report, "echoP99Us") > 0.0);
}

#[test]
fn p2p_is_checked() {
    let report = checked("p2p --pairs 100 --duration 2 --confirm --compare bare --rounds 1");
    assert!(figure(&report, "storedOverBare") > 0.0);
}

#[test]
fn a_slow_disk_is_slow_for_the_store_and_the_bare_loop() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/slow_sync.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slow_sync.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(made.expect("cc, which Rust links with").success());
    let slow = [("LD_PRELOAD", library.to_str().unwrap()), ("SLOW_SYNC_US", "20000")];
    let run = Run::begin_with("p2p --pairs 50 --duration 1 --compare bare --rounds 1", &slow).finish();
    assert_eq!(run.code, 0, "{}", run.output);
    let report = run.json();
    assert!(figure(&report, "commitMeanUs") >= 20_000.0, "{report}");
    assert!(figure(&report, "bareP50Us") >= 20_000.0, "{report}");
}

#[test]
fn p2p_over_two_gateways_is_checked() {
    let report = checked("p2p --pairs 50 --duration 1 --half --redis --gateways 2");
    assert!(figure(&report, "pushP99OverScriptP99") > 0.0);
    assert!(figure(&report, "sentLateP99Us") > 0.0 && figure(&report, "scriptLateP99Us") > 0.0);
}

#[test]
fn group_is_put_beside_the_floor() {
    // A quiet machine is not promised here: the floor may cost what it does.
    let line = "group --members 200 --messages 20 --in-flight 8 --beside 50 --compare floor --rounds 2 \
                --limit floorOverRawLoop:other<=1000";
    let report = checked(line);
    let cost = &report["figures"]["cpuUsPerDelivery"];
    assert!(cost["other"]["median"].as_f64().unwrap() > 0.0, "{report}");
    assert!(cost["ratio"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["comparedWith"], "floor");
    assert_eq!(report["limits"][0]["holds"], true);
    assert!(figure(&report, "p2pPushP99Us") > 0.0);
}

#[test]
fn group_members_confirm() {
    let report = checked("group --members 300 --online 100 --messages 5 --readers 50 --redis --gateways 2");
    assert!(figure(&report, "busMessagesPerMessage") > 0.0, "{report}");
    assert!(figure(&report, "cpuUsPerConfirmation") > 0.0);
}

#[test]
fn reconnect_wave_is_checked() {
    let report = checked("reconnect-wave --receivers 150 --waves 2");
    assert!(figure(&report, "caughtUpP99Us") > 0.0);
}

#[test]
fn slow_readers_are_checked() {
    checked("slow-readers --members 100 --slow 20 --rate 100 --duration 2");
}

#[test]
fn two_thousand_go_through_ten_hot_restarts() {
    let report = kept("hot-restart --connections 2000 --upgrades 10 --every 0.3");
    assert_eq!(figure(&report, "upgrades"), 10.0);
    assert!(figure(&report, "movedLeast") >= 2_000.0, "{report}");
    assert!(figure(&report, "midFrameShareLeast") >= 0.05 && figure(&report, "withUnsentShareLeast") >= 0.05);
    assert!(figure(&report, "pauseMaxMs") > 0.0 && figure(&report, "rttMaxMs") > 0.0);
    assert!(figure(&report, "visits") > 0.0 && figure(&report, "messages") > 0.0);
}

#[test]
fn one_of_two_gateways_is_replaced() {
    let report = kept("hot-restart --connections 200 --upgrades 3 --every 0.3 --redis --gateways 2");
    assert!(figure(&report, "movedLeast") >= 100.0, "{report}");
}

#[test]
fn a_hot_restart_that_fails_breaks_the_run() {
    let run = Run::of("hot-restart --connections 100 --upgrades 1 --every 0.1 --binary /nowhere");
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(run.output.contains("a hot restart failed"), "{}", run.output);
}

#[test]
fn soak_is_checked() {
    let report = checked("soak --connections 200 --churn 20 --pairs 20 --rate 200 --duration 2");
    assert!(figure(&report, "reconnects") > 0.0);
}

#[test]
fn check_is_checked() {
    checked("check --pairs 20 --duration 2 --least 10");
}

#[test]
fn the_page_is_whole() {
    let run = Run::of("heartbeat --connections 100 --duration 2.5 --compare floor --rounds 1");
    assert_eq!(run.code, 0, "{}", run.output);
    let page = run.page();
    html::assert_well_formed(&page);
    for chart in ["Rate", "Latency", "Percentiles", "Memory of the server", "CPU of the server"] {
        assert!(page.contains(&format!("aria-label=\"{chart}\"")), "no chart {chart}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("cpuUsPerEcho"));
    assert!(!page.contains("http://") && !page.contains("https://"), "something from elsewhere");
}

#[test]
fn presence_is_put_beside_none() {
    let line = "idle --connections 200 --hold 1 --after 0.1 --redis --compare without-presence --rounds 1";
    let report = kept(line);
    let bytes = &report["figures"]["bytesPerConnection"];
    assert!(bytes["other"]["median"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["comparedWith"], "withoutPresence");
    assert!(figure(&report, "redisReadsPerSecond") > 0.0, "{report}");

    let line = "heartbeat --connections 100 --duration 1 --compare without-presence --rounds 2";
    assert!(kept(line)["figures"]["cpuUsPerEcho"]["ratio"].as_f64().unwrap() > 0.0);
}
