//! A small HTTP/1.1 client for the admin interface: one connection a request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

/// The admin interface of one gateway.
#[derive(Clone)]
pub struct Http {
    address: SocketAddr,
    api_key: Option<String>,
    deadline: Duration,
}

/// What came back, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// Without an API key.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, api_key: None, deadline: DEADLINE }
    }

    /// The same with an API key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { api_key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same for calls that take their time.
    pub fn patient(&self) -> Self {
        Self { deadline: 6 * DEADLINE, ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// A POST that may be cut off; `None` = it was.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<Value> {
        let exchange = self.exchange(Method::POST, path, Bytes::from(body.to_string()));
        Some(tokio::time::timeout(self.deadline, exchange).await.ok()?.ok()?.json())
    }

    /// Any request; a body goes as JSON.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Reply {
        let what = format!("{method} {path}");
        match tokio::time::timeout(self.deadline, self.exchange(method, path, body)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => panic!("{what}: {error}"),
            Err(_) => panic!("{what}: no answer within {:?}", self.deadline),
        }
    }

    /// The status of a GET; `None` when nobody answers.
    pub async fn try_status(&self, path: &str) -> Option<u16> {
        let exchange = self.exchange(Method::GET, path, Bytes::new());
        let reply = tokio::time::timeout(DEADLINE, exchange).await.ok()?.ok()?;
        Some(reply.status.as_u16())
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Reply> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// This reply, or a panic when it is not a success.
    pub fn success(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }

    /// A header, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
