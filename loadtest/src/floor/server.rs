//! The floor's process, as the load generator sees it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::{Serve, parse_listens};

/// A running floor; killed on drop.
#[derive(Debug)]
pub(crate) struct Floor {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Floor {
    /// Starts one with `workers` threads.
    pub(crate) fn start(workers: u32) -> Result<Self> {
        let program = std::env::current_exe().context("own program")?;
        let mut child = Command::new(program)
            .args(Serve::line(workers))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the floor")?;
        let output = child.stdout.take().context("output of the floor")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("output of the floor")?;
        let address = parse_listens(&line).context("the floor does not say where it listens")?;
        Ok(Self { child, address })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
