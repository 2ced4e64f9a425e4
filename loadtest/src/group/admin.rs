//! Asking a gateway's admin interface, and what its metrics count.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A group of 100,000 takes a while.
const ANSWER: Duration = Duration::from_secs(60);

/// Sums over all gateways.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Messages published to other gateways.
    pub(super) bus: f64,
    /// Commands sent to Redis.
    pub(super) redis: f64,
}

impl Counts {
    /// What was counted since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self { bus: self.bus - earlier.bus, redis: self.redis - earlier.redis }
    }
}

/// One request; the body of the answer, which must be a success.
pub(super) async fn request(admin: &str, method: &str, path: &str, body: &str) -> Result<String> {
    let exchange = timeout(ANSWER, async {
        let mut stream = TcpStream::connect(admin).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let what = || format!("{method} {path} at {admin}");
    let answer = exchange.await.with_context(what)?.with_context(what)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
    if !head.starts_with("HTTP/1.1 2") {
        bail!("{}: {} {body}", what(), head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// The counts of all gateways now.
pub(super) async fn counts(admins: &[String]) -> Result<Counts> {
    let mut counts = Counts::default();
    for admin in admins {
        let text = request(admin, "GET", "/metrics", "").await?;
        counts.bus += value(&text, "tidegate_bus_messages_total{direction=\"out\"} ");
        counts.redis += value(&text, "tidegate_redis_commands_total ");
    }
    Ok(counts)
}

fn value(text: &str, series: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_name() {
        let text = "# HELP a_total b\na_total{x=\"in\"} 3\na_total{x=\"out\"} 4\nb_total 5\n";
        assert_eq!(value(text, "a_total{x=\"out\"} "), 4.0);
        assert_eq!(value(text, "b_total "), 5.0);
        assert_eq!(value(text, "c_total "), 0.0);
    }
}
