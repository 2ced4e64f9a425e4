//! Where connections go and which address they leave from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Connections of one source address to one destination: somewhat fewer than
/// the ports the kernel draws from by default (28,232).
const PORTS_PER_SOURCE: u32 = 25_000;

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
    pub(crate) async fn resolve(urls: &[String]) -> Result<Self> {
        let mut all = Vec::with_capacity(urls.len());
        for url in urls {
            let rest = url.strip_prefix("ws://").with_context(|| format!("{url}: not a ws:// address"))?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, "ws"));
            let address = lookup_host(host).await.with_context(|| url.clone())?.next();
            let address = address.with_context(|| format!("{url}: no address"))?;
            all.push(Target { address, host: host.to_owned(), path: format!("/{path}") });
        }
        Ok(Self { all })
    }

    /// Opens the TCP connection number `index`.
    pub(crate) async fn dial(&self, index: u32) -> Result<TcpStream> {
        let target = self.pick(index)?;
        let stream = match source(target.address, index) {
            None => TcpStream::connect(target.address).await?,
            Some(source) => {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(source)?;
                socket.connect(target.address).await?
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The upgrade request of connection number `index`.
    pub(crate) fn request(&self, index: u32, user: u64) -> Result<String> {
        let Target { host, path, .. } = self.pick(index)?;
        Ok(upgrade(host, &format!("{path}?user={user}&device=load")))
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

/// The upgrade request of `path` at `host`.
pub(crate) fn upgrade(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tidegate.v1\r\n\r\n"
    )
}

/// The first ones leave from where the kernel likes; later ones on loopback
/// from an address of their own, since each has its own ports.
fn source(to: SocketAddr, index: u32) -> Option<SocketAddr> {
    let IpAddr::V4(to) = to.ip() else { return None };
    let block = index / PORTS_PER_SOURCE;
    if !to.is_loopback() || block == 0 {
        return None;
    }
    let [_, b, c, d] = block.saturating_add(1).to_be_bytes();
    Some(SocketAddr::from((Ipv4Addr::new(127, b, c, d), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_serves_no_more_than_its_ports() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 7700));
        assert_eq!(source(loopback, PORTS_PER_SOURCE - 1), None);
        assert_eq!(
            source(loopback, PORTS_PER_SOURCE),
            Some(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)))
        );
        let remote = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 7700));
        assert_eq!(source(remote, PORTS_PER_SOURCE), None);
    }
}
