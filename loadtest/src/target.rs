//! Where connections go, which address they leave from, and who they say
//! they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Connections of one source address: far fewer than the ports the kernel
/// draws from (28,232), so that it finds a free one at once.
const PORTS_PER_SOURCE: u32 = 12_000;

/// The gateways under test; connections take turns.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    all: Vec<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Targets {
    /// Resolves `ws://host:port/path` addresses.
    pub(crate) fn resolve(urls: &[String]) -> Result<Self> {
        let mut all = Vec::with_capacity(urls.len());
        for url in urls {
            let rest = url.strip_prefix("ws://").with_context(|| format!("{url}: not a ws:// address"))?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, "ws"));
            let address = host.to_socket_addrs().with_context(|| url.clone())?.next();
            let address = address.with_context(|| format!("{url}: no address"))?;
            all.push(Target { address, host: host.to_owned(), path: format!("/{path}") });
        }
        Ok(Self { all })
    }

    /// Servers at these addresses.
    pub(crate) fn at(addresses: &[SocketAddr]) -> Self {
        let target = |address: &SocketAddr| Target {
            address: *address,
            host: address.to_string(),
            path: "/ws".into(),
        };
        Self { all: addresses.iter().map(target).collect() }
    }

    /// Where connection number `index` goes.
    pub(crate) fn address(&self, index: u32) -> Result<SocketAddr> {
        Ok(self.pick(index)?.address)
    }

    /// The upgrade request of connection number `index`, as `user`: with a
    /// token, or in the query. With `resume`, the client says next what it has.
    pub(crate) fn request(&self, index: u32, user: u64, token: Option<&str>, resume: bool) -> Result<String> {
        let Target { host, path, .. } = self.pick(index)?;
        let resume = if resume { "&resume=1" } else { "" };
        Ok(match token {
            None => upgrade(host, &format!("{path}?user={user}&device={DEVICE}{resume}"), ""),
            Some(token) => {
                let bearer = format!("Authorization: Bearer {token}\r\n");
                upgrade(host, &format!("{path}?device={DEVICE}{resume}"), &bearer)
            }
        })
    }

    /// Every address.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|target| target.address).collect()
    }

    fn pick(&self, index: u32) -> Result<&Target> {
        let Some(turn) = usize::try_from(index)?.checked_rem(self.all.len()) else { bail!("no address") };
        self.all.get(turn).context("no address")
    }
}

/// The device of every client here.
pub(crate) const DEVICE: &str = "load";

/// The upgrade request of `path` at `host`, with further header lines.
pub(crate) fn upgrade(host: &str, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tidegate.v1\r\n{more}\r\n"
    )
}

/// On loopback, an address that few others of this program leave from: each
/// has its own ports, and what earlier connections left in TIME_WAIT is
/// somebody else's. `None` = the kernel's choice.
pub(crate) fn source(to: SocketAddr) -> Option<SocketAddr> {
    static USED: AtomicU32 = AtomicU32::new(0);
    let IpAddr::V4(address) = to.ip() else { return None };
    address.is_loopback().then(|| numbered(std::process::id(), USED.fetch_add(1, Ordering::Relaxed)))
}

fn numbered(process: u32, connection: u32) -> SocketAddr {
    // Two processes begin at different places.
    let block = process.wrapping_mul(251).wrapping_add(connection / PORTS_PER_SOURCE);
    let [_, b, c, d] = block.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 1 + b % 250, c, 1 + d % 250), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_serves_no_more_than_its_ports() {
        assert_eq!(numbered(7, 0), numbered(7, PORTS_PER_SOURCE - 1));
        assert_ne!(numbered(7, 0), numbered(7, PORTS_PER_SOURCE));
        assert!(numbered(7, 0).ip().is_loopback());
        assert_eq!(source(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 7700))), None);
    }
}
