//! A gateway of the run's own: ephemeral ports, a directory that goes with it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::cli::{Cli, Command, ServeArgs};
use tidegate::{Exit, Gateway, install_log, process_env, resolve};

use super::GroundArgs;
use crate::admin::Admin;

const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The gateway this tool was built with, as a process: `tidegate serve` under
/// another name.
#[derive(Debug)]
pub(crate) struct Linked {
    serve: ServeArgs,
}

impl Linked {
    /// Its verb; what follows are the flags of `tidegate serve`, which are not
    /// this tool's.
    const VERB: &'static str = "gateway-process";

    /// What the process was started as, if as this.
    pub(crate) fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next()? != Self::VERB {
            return None;
        }
        let line = ["tidegate", "serve"].into_iter().map(OsString::from).chain(arguments);
        match Cli::parse_from(line).command {
            Command::Serve(serve) => Some(Self { serve }),
            _ => None,
        }
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let config =
            resolve(&self.serve.flags, process_env()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        if self.serve.check {
            return Ok(ExitCode::SUCCESS);
        }
        install_log(&config.log_filter, config.log_json).map_err(anyhow::Error::msg)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.workers)
            .enable_all()
            .build()
            .context("runtime")?;
        let handover = self.serve.handover;
        let exit = runtime.block_on(async {
            let gateway = if handover { Gateway::take_over(config).await? } else { Gateway::build(config)? };
            gateway.run().await
        })?;
        match exit {
            // What it held is another process's.
            Exit::HandedOver => runtime.shutdown_background(),
            _ => runtime.shutdown_timeout(Duration::from_secs(1)),
        }
        Ok(if matches!(exit, Exit::Stopped | Exit::HandedOver) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// A running process; killed on drop.
#[derive(Debug)]
pub(crate) struct OwnGateway {
    /// Where WebSockets are accepted.
    pub(crate) listen: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
    command: process::Command,
    child: Child,
    /// The process that has taken over from the child, if one has.
    heir: Option<u32>,
    /// Its data and its log.
    dir: TempDir,
}

impl OwnGateway {
    /// Starts number `number` and waits until it is ready.
    pub(super) fn start(
        args: &GroundArgs,
        number: u32,
        redis: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Self> {
        let dir = match &args.data {
            Some(path) => tempfile::Builder::new().prefix("tidegate-load-").tempdir_in(path),
            None => tempfile::Builder::new().prefix("tidegate-load-").tempdir(),
        };
        let dir = dir.context("a directory for the gateway")?;
        let log = File::create(dir.path().join("gateway.log")).context("the gateway's log")?;
        let mut command = match &args.gateway {
            Some(program) => {
                let mut command = process::Command::new(program);
                command.arg("serve");
                command
            }
            None => {
                let mut command = process::Command::new(std::env::current_exe().context("own program")?);
                command.arg(Linked::VERB);
                command
            }
        };
        for (name, _) in process_env() {
            command.env_remove(name);
        }
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path().join("data"));
        if let Some(url) = redis {
            command.args(["--redis", url, "--gateway-id", &format!("load-{number}")]);
        }
        if let Some(path) = config_file(args, secret, &dir)? {
            command.arg("--config").arg(path);
        }
        command
            .env("TIDEGATE_WORKERS", args.workers().to_string())
            .envs(args.variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the gateway's log")?)
            .stderr(log);
        let child = command.spawn().context("starting the gateway")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self { listen: nowhere, admin: nowhere, command, child, heir: None, dir };
        gateway.wait_ready()?;
        Ok(gateway)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + READY;
        loop {
            if let Some(status) = self.child.try_wait().context("the gateway")? {
                bail!("the gateway ended at start: {status}\n{}", self.log());
            }
            if self.read_run_file().is_some()
                && Admin(self.admin.to_string()).request("GET", "/readyz", "").is_ok()
            {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("the gateway is not ready within {READY:?}\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes the addresses from `run.json`.
    fn read_run_file(&mut self) -> Option<()> {
        let text = fs::read_to_string(self.dir.path().join("data/run.json")).ok()?;
        let run: Value = serde_json::from_str(&text).ok()?;
        if run.get("pid")?.as_u64()? != u64::from(self.child.id()) {
            // Of the one before.
            return None;
        }
        let address = |name: &str| run.get(name)?.as_str()?.parse().ok();
        (self.listen, self.admin) = (address("listen")?, address("admin")?);
        Some(())
    }

    /// Asks the process to end, and starts another one on its data.
    pub(super) fn restart(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)
            .context("stopping the gateway")?;
        let end = Instant::now() + STOP;
        while self.child.try_wait().context("the gateway")?.is_none() {
            if Instant::now() > end {
                bail!("the gateway does not stop\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        self.child = self.command.spawn().context("starting the gateway again")?;
        self.wait_ready()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.heir.unwrap_or_else(|| self.child.id())
    }

    /// Process `pid` has taken over.
    pub(super) fn handed_over(&mut self, pid: u32) {
        // Buried, where it has ended; else with this.
        let _ = self.child.try_wait();
        self.heir = Some(pid);
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(heir) = self.heir.take() {
            let _ = kill(Pid::from_raw(heir.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Where its data is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The end of what it wrote.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for OwnGateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The caller's file, and behind it the key that tokens are signed with.
fn config_file(args: &GroundArgs, secret: Option<&str>, dir: &TempDir) -> Result<Option<PathBuf>> {
    if args.config.is_none() && secret.is_none() {
        return Ok(None);
    }
    let mut text = match &args.config {
        Some(path) => fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => String::new(),
    };
    if let Some(secret) = secret {
        write!(
            text,
            "\n[auth]\nmode = \"jwt\"\n[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n"
        )?;
    }
    let path = dir.path().join("tidegate.toml");
    fs::write(&path, text).context("the gateway's configuration")?;
    Ok(Some(path))
}
