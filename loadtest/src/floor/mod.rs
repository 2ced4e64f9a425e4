//! The least a server can do: bare epoll, prebuilt frames, no state.
//!
//! It speaks as much of the protocol as a client at full speed needs: the
//! upgrade and `Ready` in one write, `00` answered by `00`, and a send
//! answered by its ack and fanned out to every other connection, each frame a
//! write of its own, or up to [`COALESCED`] frames that wait together in one.
//! Nothing is authenticated, stored, routed or checked. It runs in a process
//! of its own, which ends when its standard input does.

mod guest;
mod server;
mod work;
mod worker;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;

pub(crate) use self::server::Floor;

/// Frames of one write at most.
pub(crate) const COALESCED: usize = 8;
/// The topic of a `Custom` that asks for the raw loop, in decimals with spaces
/// between: how often every connection is written to, frames of a write, bytes
/// of text of a frame. Answered by nanoseconds of CPU and sends.
pub(crate) const RAW: &str = "raw";

/// Arguments of the process.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Threads.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

impl Serve {
    /// The arguments of a process with `workers` threads.
    pub(crate) fn line(workers: u32) -> Vec<String> {
        vec!["floor".to_owned(), "--workers".to_owned(), workers.to_string()]
    }

    /// Serves; says on standard output where.
    pub(crate) fn run(&self) -> Result<()> {
        let address = worker::start(self.workers)?;
        println!("{LISTENS}{address}");
        // Whoever started it is gone when nothing can be read any more.
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
        Ok(())
    }
}

const LISTENS: &str = "floor listens on ";

fn parse_listens(line: &str) -> Option<SocketAddr> {
    line.trim().strip_prefix(LISTENS)?.parse().ok()
}
