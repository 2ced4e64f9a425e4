//! The tool says no when it should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod tool;

use tool::Run;

#[test]
fn a_gateway_that_dies_breaks_the_run() {
    for (line, things) in [
        ("p2p --pairs 20 --duration 60", "messages"),
        ("heartbeat --connections 50 --duration 60", "echoes"),
        ("group --members 50 --messages 1000000", "copies"),
    ] {
        let run = Run::begin(line).kill_the_gateway(things);
        assert_eq!(run.code, 1, "{line}: {}", run.output);
        assert_eq!(run.json()["verdict"], "broken");
        assert!(run.output.contains("BROKEN"), "{}", run.output);
    }
}

#[test]
fn a_limit_that_is_exceeded_breaks_the_run() {
    let run = Run::of("heartbeat --connections 20 --duration 0.5 --limit cpuUsPerEcho<=0.0001");
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(run.output.contains("EXCEEDED"), "{}", run.output);
}

#[test]
fn a_limit_on_nothing_proves_nothing() {
    let run = Run::of("heartbeat --connections 20 --duration 0.5 --limit cpuUsPerEhco<=1");
    assert_eq!(run.code, 2, "{}", run.output);
    assert_eq!(run.json()["verdict"], "void");
}

#[test]
fn too_little_traffic_proves_nothing() {
    let run = Run::of("check --pairs 2 --duration 1 --least 100000");
    assert_eq!(run.code, 2, "{}", run.output);
}

#[test]
fn what_cannot_run_says_so() {
    for line in [
        "heartbeat --gateway /nowhere/tidegate",
        "heartbeat --url ws://127.0.0.1:1/ws --admin 127.0.0.1:1",
        "p2p --compare floor",
        "p2p --gateways 2",
    ] {
        let run = Run::of(line);
        assert_eq!(run.code, 2, "{line}: {}", run.output);
    }
}
