//! A gateway process of the test's own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::http::Http;

const READY: Duration = Duration::from_secs(30);

/// What differs from `tidegate serve` on ephemeral ports.
#[derive(Default, Clone)]
pub struct Options {
    redis: Option<String>,
    gateway_id: Option<String>,
    config: Option<String>,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
    data_dir: Option<PathBuf>,
}

impl Options {
    /// Alone, defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// One of many, on this Redis, under this name.
    pub fn cluster(redis: &super::Redis, gateway_id: &str) -> Self {
        Self { redis: Some(redis.url()), gateway_id: Some(gateway_id.to_owned()), ..Self::default() }
    }

    /// With a configuration file of this text.
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// With one more environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With one more argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With its data in this directory of the test's own.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }
}

/// One process; killed on drop. Its output is printed when the test fails.
pub struct Gateway {
    /// Where WebSockets are accepted.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The name it runs under.
    pub id: String,
    /// Of this start.
    pub epoch: u64,
    dir: TempDir,
    options: Options,
    child: Child,
    /// The process that has taken over from the child, if one has.
    heir: Option<u32>,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub async fn start(options: Options) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options).await
    }

    /// Starts again in the directory of a gateway that was killed.
    pub async fn restart(self) -> Self {
        let Parts { dir, options } = self.into_parts();
        Self::start_in(dir, options).await
    }

    /// Starts again, in the same directory, otherwise.
    pub async fn restart_as(self, options: Options) -> Self {
        let Parts { dir, .. } = self.into_parts();
        Self::start_in(dir, options).await
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        data_path(self.dir.path(), &self.options)
    }

    /// Starts one that is expected to give up; returns how it ended and what
    /// it said.
    pub async fn refusal(options: Options, deadline: Duration) -> (ExitStatus, String) {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(dir.path(), &options);
        let status = wait_exit(&mut child, deadline).await;
        let log = fs::read_to_string(log_path(dir.path())).unwrap_or_default();
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {deadline:?}:\n{log}");
        };
        (status, log)
    }

    /// The admin interface.
    pub fn http(&self) -> Http {
        Http::new(self.admin)
    }

    /// Goes on with the process that has taken over; the one before must end.
    pub async fn adopt(&mut self, pid: u32) {
        let before = self.process_id();
        let end = Instant::now() + READY;
        let is_child = self.heir.is_none();
        while if is_child { self.child.try_wait().unwrap().is_none() } else { is_alive(before) } {
            assert!(Instant::now() < end, "process {before} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.heir = Some(pid);
    }

    /// A hot restart that must succeed; returns what is said of it.
    pub async fn upgrade(&mut self) -> Value {
        let report = self.http().patient().post("/v1/upgrade", &serde_json::json!({})).await.success().json();
        self.adopt(u32::try_from(report["pid"].as_u64().unwrap()).unwrap()).await;
        report
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        if let Some(heir) = self.heir.take().filter(|heir| is_alive(*heir)) {
            let _ = kill(Pid::from_raw(heir.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        if let Some(heir) = self.heir {
            let end = Instant::now() + deadline;
            while is_alive(heir) {
                assert!(Instant::now() < end, "still running after {deadline:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        wait_exit(&mut self.child, deadline)
            .await
            .unwrap_or_else(|| panic!("still running after {deadline:?}"))
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.heir.unwrap_or_else(|| self.child.id())
    }

    /// All it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir.path())).unwrap_or_default()
    }

    async fn start_in(dir: TempDir, options: Options) -> Self {
        let child = spawn(dir.path(), &options);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self {
            listen: nowhere,
            admin: nowhere,
            id: String::new(),
            epoch: 0,
            dir,
            options,
            child,
            heir: None,
        };
        gateway.wait_ready().await;
        gateway
    }

    async fn wait_ready(&mut self) {
        let end = Instant::now() + READY;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended at start: {status}");
            }
            if self.read_run_file() && self.http().try_status("/readyz").await == Some(200) {
                return;
            }
            assert!(Instant::now() < end, "the gateway is not ready within {READY:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes the addresses from `run.json`, unless it is of an earlier start.
    fn read_run_file(&mut self) -> bool {
        let Ok(text) = fs::read_to_string(self.data_dir().join("run.json")) else { return false };
        let run: Value = serde_json::from_str(&text).expect("run.json is written atomically");
        if run["pid"].as_u64() != Some(u64::from(self.child.id())) {
            return false;
        }
        self.listen = run["listen"].as_str().unwrap().parse().unwrap();
        self.admin = run["admin"].as_str().unwrap().parse().unwrap();
        self.id = run["gatewayId"].as_str().unwrap().to_owned();
        self.epoch = run["epoch"].as_u64().unwrap();
        true
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process_id().cast_signed())
    }

    fn into_parts(mut self) -> Parts {
        self.kill();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Parts { dir, options: self.options.clone() }
    }
}

struct Parts {
    dir: TempDir,
    options: Options,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- gateway {} ---\n{}", self.id, self.log());
        }
    }
}

/// Whether a process runs; one that only waits to be buried does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn spawn(dir: &Path, options: &Options) -> Child {
    let log = File::options().create(true).append(true).open(log_path(dir)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(key);
        }
    }
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(data_path(dir, options))
        .args(&options.arguments);
    if let Some(url) = &options.redis {
        command.args(["--redis", url]);
    }
    if let Some(id) = &options.gateway_id {
        command.args(["--gateway-id", id]);
    }
    if let Some(toml) = &options.config {
        let path = dir.join("tidegate.toml");
        fs::write(&path, toml).unwrap();
        command.arg("--config").arg(path);
    }
    command
        .envs(options.env.iter().map(|(key, value)| (key, value)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

async fn wait_exit(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

fn data_path(dir: &Path, options: &Options) -> PathBuf {
    options.data_dir.clone().unwrap_or_else(|| dir.join("data"))
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("gateway.log")
}
