//! The tool as a process.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its own part of this")]

pub mod html;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// No run here takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// A run that is going on.
pub struct Running {
    child: Child,
    dir: TempDir,
}

/// A run that is over.
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output and error.
    pub output: String,
    dir: TempDir,
}

impl Run {
    /// Starts one; arguments are what stands between spaces.
    pub fn begin(line: &str) -> Running {
        Self::begin_with(line, &[])
    }

    /// The same, with variables.
    pub fn begin_with(line: &str, variables: &[(&str, &str)]) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate-loadtest"))
            .args(line.split_whitespace())
            .arg("--json")
            .arg(dir.path().join("report.json"))
            .arg("--html")
            .arg(dir.path().join("report.html"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, dir }
    }

    /// Starts one and waits for its end.
    pub fn of(line: &str) -> Self {
        Self::begin(line).finish()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.file("report.json")).unwrap()
    }

    pub fn page(&self) -> String {
        self.file("report.html")
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name))
            .unwrap_or_else(|error| panic!("{error}: {}", self.output))
    }
}

impl Running {
    /// Kills the run's gateway once so many `things` a second are told of.
    pub fn kill_the_gateway(mut self, things: &str) -> Run {
        let end = Instant::now() + DEADLINE;
        while !self.output().contains(&format!("{things}/s")) {
            let over = self.child.try_wait().unwrap().is_some() || Instant::now() > end;
            assert!(!over, "nothing is told of: {}", self.output());
            std::thread::sleep(POLL);
        }
        let gateway = child_of(self.child.id()).expect("the run's gateway");
        kill(Pid::from_raw(gateway.cast_signed()), Signal::SIGKILL).unwrap();
        self.finish()
    }

    pub fn finish(mut self) -> Run {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("still running after {DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        };
        Run { code: status.code().expect("an exit code"), output: self.output(), dir: self.dir }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// The process that `parent` started.
fn child_of(parent: u32) -> Option<u32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        (fields.split_whitespace().nth(1)?.parse() == Ok(parent)).then_some(pid)
    })
}
