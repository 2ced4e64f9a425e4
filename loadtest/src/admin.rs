//! Asking a gateway's admin interface.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A group of 100,000 takes a while.
const ANSWER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// One gateway's admin address.
#[derive(Debug, Clone)]
pub(crate) struct Admin(pub(crate) String);

impl Admin {
    /// One request; the body of the answer, which must be a success.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let what = || format!("{method} {path} at {}", self.0);
        let answer = self.exchange(method, path, body).with_context(what)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{}: {} {body}", what(), head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let address = self.0.to_socket_addrs()?.next().context("no address")?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.0,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// `GET /v1/status`.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.request("GET", "/v1/status", "")?)?)
    }

    /// Connections by its own count.
    pub(crate) fn connections(&self) -> Result<u64> {
        self.status()?.get("connections").and_then(Value::as_u64).context("status without connections")
    }

    /// Waits until at most `most` connections are left; how many are in the
    /// end.
    pub(crate) fn settle(&self, most: u64, within: Duration) -> Result<u64> {
        let end = Instant::now() + within;
        loop {
            let left = self.connections()?;
            if left <= most || Instant::now() >= end {
                return Ok(left);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Makes a group.
    pub(crate) fn create(&self, group: &str, members: &[u64]) -> Result<()> {
        let body = json!({"id": group, "members": members}).to_string();
        self.request("POST", "/v1/conversations", &body).map(drop)
    }

    /// Removes a group.
    pub(crate) fn delete(&self, group: &str) -> Result<()> {
        self.request("DELETE", &format!("/v1/conversations/{group}"), "").map(drop)
    }

    /// One series of its metrics; 0 when there is none.
    pub(crate) fn metric(&self, series: &str) -> Result<f64> {
        Ok(value(&self.request("GET", "/metrics", "")?, series))
    }
}

fn value(text: &str, series: &str) -> f64 {
    let line = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_name() {
        let text = "# HELP a_total b\na_total{x=\"in\"} 3\na_total{x=\"out\"} 4\nb_total 5\n";
        assert_eq!(value(text, "a_total{x=\"out\"}"), 4.0);
        assert_eq!(value(text, "b_total"), 5.0);
        assert_eq!(value(text, "c_total"), 0.0);
    }
}
