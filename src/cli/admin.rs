//! A client of the admin listener: JSON over HTTP/1.1, one connection per
//! request.
//!
//! Promises that every call ends within its deadline and that a problem
//! document comes back as a readable error.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How to reach the admin listener of a gateway.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address of the gateway's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7701", global = true)]
    pub admin: String,
    /// Key of the admin listener, where it asks for one [env: TIDEGATE_ADMIN_API_KEY]
    #[arg(long, value_name = "KEY", global = true)]
    pub api_key: Option<String>,
}

/// A problem document (RFC 9457), or any other refusal.
#[derive(Debug, thiserror::Error)]
#[error("{}", problem_words(*status, body))]
pub struct Problem {
    /// HTTP status of the answer.
    pub status: u16,
    /// The document; `Null` when the answer was no JSON.
    pub body: Value,
}

/// Calls the admin listener of one gateway.
#[derive(Debug)]
pub struct Admin {
    authority: String,
    host: String,
    port: u16,
    api_key: Option<String>,
}

impl Admin {
    /// Reads the address; connects to nothing yet.
    pub fn new(args: &AdminArgs) -> Result<Self> {
        let uri: Uri = args.admin.parse().with_context(|| format!("--admin {}: not a URL", args.admin))?;
        if uri.scheme_str() != Some("http") {
            bail!("--admin {}: expected http://host:port (TLS is not supported)", args.admin);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            bail!("--admin {}: expected http://host:port without a path", args.admin);
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let api_key = args.api_key.clone().or_else(|| std::env::var("TIDEGATE_ADMIN_API_KEY").ok());
        Ok(Self { authority, host, port: uri.port_u16().unwrap_or(80), api_key })
    }

    /// `GET path`. Answers outside 2xx are a [`Problem`].
    pub async fn get_json(&self, path: &str, limit: Duration) -> Result<Value> {
        self.call(Method::GET, path, None, limit).await
    }

    /// `POST path` with a JSON body. Answers outside 2xx are a [`Problem`].
    pub async fn post_json(&self, path: &str, body: &Value, limit: Duration) -> Result<Value> {
        self.call(Method::POST, path, Some(body), limit).await
    }

    /// `PUT path` with a JSON body. Answers outside 2xx are a [`Problem`].
    pub async fn put_json(&self, path: &str, body: &Value, limit: Duration) -> Result<Value> {
        self.call(Method::PUT, path, Some(body), limit).await
    }

    /// `DELETE path`. Answers outside 2xx are a [`Problem`].
    pub async fn delete_json(&self, path: &str, limit: Duration) -> Result<Value> {
        self.call(Method::DELETE, path, None, limit).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>, limit: Duration) -> Result<Value> {
        let what = format!("{method} http://{}{path}", self.authority);
        match timeout(limit, self.exchange(method, path, body)).await {
            Ok(result) => result.with_context(|| what),
            Err(_) => Err(anyhow!("no answer within {limit:?}")).context(what),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(key) = &self.api_key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(bytes))).context("the request cannot be formed")?;

        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .context("cannot connect; is `tidegate serve` running there?")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Dropping `sender` below ends the connection.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow!("the answer could not be read: {error}"))?
            .to_bytes();
        connection.abort();
        read(status, &bytes)
    }
}

fn read(status: StatusCode, bytes: &[u8]) -> Result<Value> {
    if !status.is_success() {
        let text = || Value::String(String::from_utf8_lossy(bytes).trim().to_owned());
        let body = serde_json::from_slice(bytes).unwrap_or_else(|_| text());
        return Err(Problem { status: status.as_u16(), body }.into());
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).context("the answer is not JSON")
}

/// `title (status): detail`, then the members a problem adds of its own.
fn problem_words(status: u16, body: &Value) -> String {
    let Value::Object(members) = body else {
        return match body.as_str() {
            Some(text) if !text.is_empty() => format!("HTTP {status}: {text}"),
            _ => format!("HTTP {status}"),
        };
    };
    let text = |name| members.get(name).and_then(Value::as_str);
    let mut words =
        text("title").map_or_else(|| format!("HTTP {status}"), |title| format!("{title} ({status})"));
    if let Some(detail) = text("detail") {
        words.push_str(&format!(": {detail}"));
    }
    for (name, value) in members {
        if !matches!(name.as_str(), "type" | "title" | "status" | "detail" | "instance") {
            words.push_str(&format!("\n  {name}: {value}"));
        }
    }
    words
}

const MAX_BODY: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`; yields what was asked.
    async fn serve_once(answer: &'static str) -> (Admin, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        (Admin::new(&AdminArgs { admin, api_key: Some("k3y".into()) }).unwrap(), task)
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn answers_are_json_and_the_key_is_sent() {
        let (admin, asked) = serve_once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"pid\":1}").await;
        assert_eq!(admin.get_json("/v1/status", LIMIT).await.unwrap(), json!({"pid": 1}));
        let asked = asked.await.unwrap().to_lowercase();
        assert!(asked.starts_with("get /v1/status http/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: bearer k3y\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn problems_are_readable() {
        let answer = "HTTP/1.1 409 Conflict\r\ncontent-length: 61\r\n\r\n{\"title\":\"Conflict\",\"status\":409,\"detail\":\"other members\",\"a\":1}";
        let answer = answer.replace("61", &answer.split("\r\n\r\n").nth(1).unwrap().len().to_string());
        let (admin, _asked) = serve_once(answer.leak()).await;
        let error = admin.post_json("/v1/conversations", &json!({}), LIMIT).await.unwrap_err();
        let problem = error.downcast_ref::<Problem>().unwrap();
        assert_eq!(problem.to_string(), "Conflict (409): other members\n  a: 1");
    }

    #[tokio::test]
    async fn silence_meets_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        let admin = Admin::new(&AdminArgs { admin, api_key: None }).unwrap();
        let error = admin.get_json("/livez", Duration::from_millis(50)).await.unwrap_err();
        assert!(format!("{error:#}").contains("no answer within"), "{error:#}");
    }

    #[test]
    fn addresses_are_checked() {
        for bad in ["127.0.0.1:7701", "https://h", "http://h/x", ""] {
            assert!(Admin::new(&AdminArgs { admin: bad.into(), api_key: None }).is_err(), "{bad}");
        }
        assert_eq!(problem_words(503, &Value::String(String::new())), "HTTP 503");
    }
}
