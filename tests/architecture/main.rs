//! Who may import whom, and what stands in one place only.
//!
//! The tables below are the layout of the crate. A new edge between folders is
//! a decision: it is made here, in sight, or not at all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod paths;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder and all it may import. `lib.rs` and `main.rs` are free.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    // Only in builds that are wrong on purpose.
    ("planted", &[]),
    ("task", &[]),
    ("telemetry", &["types"]),
    ("analytics", &["types"]),
    ("config", &["analytics", "types"]),
    ("wire", &["types"]),
    ("timer", &[]),
    ("message", &["types", "wire"]),
    ("hub", &["types", "telemetry", "message", "wire"]),
    ("redis", &["planted", "types", "telemetry", "config"]),
    ("route", &["planted", "redis", "types", "telemetry"]),
    ("presence", &["redis", "types"]),
    ("bus", &["redis", "wire", "task", "types", "telemetry"]),
    ("store", &["redis", "analytics", "wire", "types", "telemetry"]),
    // Who comes: from connections and reports, into the ledger.
    ("census", &["analytics", "presence", "store", "hub", "task", "types", "telemetry"]),
    ("sink", &["analytics", "store", "task", "types", "telemetry", "config"]),
    (
        "pipeline",
        &[
            "planted",
            "hub",
            "message",
            "route",
            "presence",
            "bus",
            "store",
            "wire",
            "task",
            "types",
            "telemetry",
            "config",
        ],
    ),
    // Nobody imports it: it is for `benches/`.
    ("bench", &["hub", "message", "types", "telemetry"]),
    ("net", &["telemetry"]),
    ("ws", &["types", "config"]),
    (
        "session",
        &["ws", "wire", "hub", "census", "pipeline", "message", "store", "types", "telemetry", "config"],
    ),
    (
        "handover",
        &[
            "census",
            "session",
            "pipeline",
            "store",
            "bus",
            "presence",
            "route",
            "hub",
            "message",
            "wire",
            "types",
            "telemetry",
            "config",
        ],
    ),
    (
        "admin",
        &[
            "analytics",
            "census",
            "handover",
            "hub",
            "pipeline",
            "presence",
            "route",
            "store",
            "redis",
            "message",
            "wire",
            "types",
            "telemetry",
            "config",
        ],
    ),
    (
        "gateway",
        &[
            "census",
            "sink",
            "handover",
            "admin",
            "session",
            "wire",
            "ws",
            "net",
            "pipeline",
            "store",
            "bus",
            "presence",
            "route",
            "redis",
            "hub",
            "message",
            "timer",
            "task",
            "telemetry",
            "config",
            "types",
        ],
    ),
    ("client", &["types", "wire"]),
    // `token` proves what it minted with the gateway's own authenticator.
    ("cli", &["client", "wire", "types", "config", "ws"]),
];

/// No I/O, no clock, no chance: what they need of these is handed to them.
const PURE: &[&str] = &["types", "wire", "timer", "message", "analytics"];
const IMPURE: &[&str] = &["tokio::", "redis::", "fastrand::", "std::net", "Instant", "SystemTime"];
const CLOCK: &str = "types/clock.rs";

/// What is named in one place only, or in two, and which.
const ALONE: &[(&[&str], &[&str])] = &[
    (&["dashmap::"], &["hub/"]),
    (
        &["counter!", "gauge!", "histogram!", "describe_counter!", "describe_gauge!", "describe_histogram!"],
        &["telemetry/metrics.rs"],
    ),
    (&["unsafe"], &["allocator.rs", "hub/direct.rs"]),
];

/// Past this a file has a second concept in it.
const MOST_LINES: usize = 450;

#[derive(Default)]
struct Findings {
    files: usize,
    violations: BTreeSet<String>,
    /// Edges of the table that are in use.
    edges: BTreeSet<(String, String)>,
}

/// Holds every file below `src` against the tables.
fn check(src: &Path) -> Findings {
    let mut findings = Findings::default();
    let mut files = Vec::new();
    collect(src, &mut files);
    for file in files {
        let name = file.strip_prefix(src).unwrap().to_str().unwrap().replace('\\', "/");
        findings.file(&name, &fs::read_to_string(&file).unwrap());
    }
    findings
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Findings {
    fn file(&mut self, name: &str, source: &str) {
        self.files += 1;
        let mut wrong = |what: String| {
            self.violations.insert(format!("{name}: {what}"));
        };
        let lines = source.lines().count();
        if lines > MOST_LINES {
            wrong(format!("{lines} lines"));
        }
        let folder = name.split_once('/').map(|(folder, _)| folder);
        let pure = folder.is_some_and(|folder| PURE.contains(&folder)) && name != CLOCK;
        for named in paths::named(source) {
            for (words, places) in ALONE {
                for word in words.iter().filter(|word| says(&named.path, word)) {
                    if !places.iter().any(|place| name.starts_with(place)) {
                        wrong(format!("{word} outside {}", places.join(" and ")));
                    }
                }
            }
            if pure {
                for word in IMPURE.iter().filter(|word| says(&named.path, word)) {
                    wrong(format!("a pure folder names {word}"));
                }
            }
            let (Some(folder), Some(target)) = (folder, imported(name, &named)) else { continue };
            if target == folder {
                continue;
            }
            match IMPORTS.iter().find(|(row, _)| *row == folder) {
                None => wrong("a folder without a row".to_owned()),
                Some((_, allowed)) if !allowed.contains(&target.as_str()) => {
                    wrong(format!("{folder} imports {target}"));
                }
                Some(_) => {
                    self.edges.insert((folder.to_owned(), target));
                }
            }
        }
    }
}

/// Whether `path` is what `word` means: `a::` = anything of the crate `a`,
/// `a::b` = that and all below, a lone name = that name anywhere.
fn says(path: &[String], word: &str) -> bool {
    match word.split_once("::") {
        Some((root, "")) => path.len() > 1 && path[0] == root,
        Some(_) => word.split("::").enumerate().all(|(n, segment)| path.get(n).is_some_and(|s| s == segment)),
        None => path.iter().any(|segment| segment == word),
    }
}

/// The top-level name a path of this crate leads to; `None` for other crates
/// and for what stays inside the file's own folder by `self` or few `super`s.
fn imported(file: &str, named: &paths::Named) -> Option<String> {
    let mut segments = named.path.iter().map(String::as_str).peekable();
    if segments.peek() == Some(&"crate") {
        segments.next();
        return segments.next().map(str::to_owned);
    }
    // The modules around the path, outermost first.
    let mut around: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if around.last() == Some(&"mod") {
        around.pop();
    }
    around.extend(named.inline.iter().map(String::as_str));
    let mut climbed = false;
    while segments.next_if_eq(&"super").is_some() {
        climbed = true;
        around.pop();
    }
    (climbed && around.is_empty()).then(|| segments.next().unwrap_or("*").to_owned())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn every_folder_imports_only_what_stands_below_it() {
    let findings = check(&source());
    assert!(findings.files > 60, "only {} files were looked at", findings.files);
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
}

#[test]
fn every_folder_has_a_row_and_every_edge_a_use() {
    let rows: BTreeSet<String> = IMPORTS.iter().map(|(row, _)| (*row).to_owned()).collect();
    let folders = fs::read_dir(source()).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(rows, folders);
    let table = IMPORTS
        .iter()
        .flat_map(|(row, allowed)| allowed.iter().map(|target| ((*row).to_owned(), (*target).to_owned())));
    let used = check(&source()).edges;
    let unused: Vec<_> = table.filter(|edge| !used.contains(edge)).collect();
    assert!(unused.is_empty(), "allowed, but not needed: {unused:?}");
}

#[test]
fn the_table_has_no_cycle() {
    let mut settled: Vec<&str> = Vec::new();
    while settled.len() < IMPORTS.len() {
        let free = |(row, needs): &&(&str, &[&str])| {
            !settled.contains(row) && needs.iter().all(|need| settled.contains(need))
        };
        let next: Vec<&str> = IMPORTS.iter().filter(free).map(|(row, _)| *row).collect();
        assert!(!next.is_empty(), "a cycle among what is not in {settled:?}");
        settled.extend(next);
    }
}

/// Each planted line alone, where it goes, and the one thing said about it.
#[test]
fn what_is_planted_is_found_and_nothing_else() {
    let plants: &[(&str, &str, &str)] = &[
        ("types/ids.rs", "use crate::hub::Hub;", "types imports hub"),
        ("timer/wheel.rs", "use crate::types::UserId;", "timer imports types"),
        ("hub/peer.rs", "use crate::{telemetry::metrics, bus::{Bus, Destination}};", "hub imports bus"),
        ("store/memory/log.rs", "fn f() -> crate::route::Route { todo!() }", "store imports route"),
        ("net/accept.rs", "use super::super::session::establish;", "net imports session"),
        ("wire/pb.rs", "mod tests { use super::super::super::store; }", "wire imports store"),
        ("bus/mod.rs", "use super::pipeline;", "bus imports pipeline"),
        ("wire/varint.rs", "use std::{fmt, net::IpAddr};", "a pure folder names std::net"),
        ("wire/frame.rs", "async fn f() { tokio::task::yield_now().await }", "a pure folder names tokio::"),
        ("message/draft.rs", "fn f() -> u8 { fastrand::u8(..) }", "a pure folder names fastrand::"),
        ("types/phase.rs", "use std::time::{Duration, Instant};", "a pure folder names Instant"),
        ("store/redis/mod.rs", "type M = dashmap::DashMap<u8, u8>;", "dashmap:: outside hub/"),
        ("session/mod.rs", "fn f() { metrics::counter!(\"x\"); }", "counter! outside telemetry/metrics.rs"),
        ("lib.rs", "use metrics::gauge;\nfn f() { gauge!(\"x\"); }", "gauge! outside telemetry/metrics.rs"),
        ("main.rs", "fn f() { unsafe { g() } }", "unsafe outside allocator.rs and hub/direct.rs"),
    ];
    for (file, line, said) in plants {
        let copied = tempfile::tempdir().unwrap();
        copy(&source(), copied.path());
        let path = copied.path().join(file);
        let planted = format!("{}\n{line}\n", fs::read_to_string(&path).unwrap());
        fs::write(&path, planted).unwrap();
        let violations: Vec<String> = check(copied.path()).violations.into_iter().collect();
        assert_eq!(violations, [format!("{file}: {said}")], "{line}");
    }
}

#[test]
fn a_long_file_is_found() {
    let copied = tempfile::tempdir().unwrap();
    copy(&source(), copied.path());
    fs::write(copied.path().join("hub/long.rs"), "//\n".repeat(MOST_LINES + 1)).unwrap();
    let violations: Vec<String> = check(copied.path()).violations.into_iter().collect();
    assert_eq!(violations, ["hub/long.rs: 451 lines"]);
}

#[test]
fn comments_and_texts_import_nothing() {
    let source = r##"
        //! use crate::a;
        /* use crate::b; /* crate::c */ */
        const A: &str = "crate::d \" crate::e";
        const B: &str = r#"crate::f " "#;
        const C: (char, char, &'static u8) = ('"', '\'', &1);
        /// [`crate::g`]
        use crate::h::{i::J, k};
    "##;
    let all: Vec<String> = paths::named(source).iter().map(|named| named.path.join("::")).collect();
    let own: Vec<&str> = all.iter().map(String::as_str).filter(|path| path.starts_with("crate")).collect();
    assert_eq!(own, ["crate::h::i::J", "crate::h::k"]);
}
