//! The new process: found, tried out, started, and ended where it fails.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::{Channel, HandoverError};

/// Longest the trial run may take.
const CHECK: Duration = Duration::from_secs(30);
/// The flag that makes of `serve` the new process of a handover.
const FLAG: &str = "--handover";
/// Set for this process alone by whoever supervises it.
const PERSONAL: [&str; 5] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// How this process was started, and so how the next one is.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process; to be asked before its file is replaced.
    #[must_use]
    pub(crate) fn current() -> Self {
        let mut arguments = std::env::args_os();
        let named = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        // A link that is moved to the next version is followed anew.
        let named = named.and_then(|path| std::path::absolute(path).ok());
        let path = named.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| "tidegate".into());
        Self { path, arguments: arguments.filter(|argument| argument != FLAG).collect() }
    }

    /// The same arguments for another file.
    #[must_use]
    pub(crate) fn at(&self, path: Option<&Path>) -> Self {
        Self { path: path.unwrap_or(&self.path).to_owned(), arguments: self.arguments.clone() }
    }

    /// Has it check the configuration; what it says is the error.
    pub(super) async fn check(&self) -> Result<(), HandoverError> {
        let mut command = self.command();
        command.arg("--check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let path = self.path.display();
        let unfit = |why: String| HandoverError::Unfit(format!("{path}: {why}"));
        let mut child = command.spawn().map_err(|error| unfit(error.to_string()))?;
        let stderr = child.stderr.take();
        let mut guard = Newborn(Some(child));
        let run = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            if let Some(mut stderr) = stderr {
                let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
            }
            said
        });
        let said = timeout(CHECK, run).await;
        if said.is_err() {
            return Err(unfit("`serve --check` does not end".to_owned()));
        }
        let status = guard.wait().map_err(|error| unfit(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        Err(unfit(format!("`serve --check`: {status}: {}", said.trim())))
    }

    /// Starts it with the other end of a control socket.
    pub(super) fn start(&self) -> Result<(Newborn, Channel), HandoverError> {
        let (channel, theirs): (Channel, OwnedFd) = Channel::pair()?;
        // The command keeps its copy of the other end: it must not outlive this.
        let child = self.command().arg(FLAG).stdin(Stdio::from(theirs)).spawn();
        let child =
            child.map_err(|error| HandoverError::Unfit(format!("{}: {error}", self.path.display())))?;
        Ok((Newborn(Some(child)), channel))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        for name in PERSONAL {
            command.env_remove(name);
        }
        command
    }
}

/// A process that is ended with this, unless it is let go.
#[derive(Debug)]
pub(super) struct Newborn(Option<Child>);

impl Newborn {
    /// Its id.
    pub(super) fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// It stands on its own from now on.
    pub(super) fn let_go(mut self) {
        self.0 = None;
    }

    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.0.as_mut().ok_or(std::io::ErrorKind::NotFound)?.wait()
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Also one that is stopped; gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
