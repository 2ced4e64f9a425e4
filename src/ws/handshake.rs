//! The HTTP upgrade. Parsing and the accept key are tungstenite's; limits,
//! status codes and credentials are ours.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::query::Query;

/// Longest request, bytes.
const MAX_HEAD: usize = 8 * 1024;
const PATH: &str = "/ws";
const SUBPROTOCOL: &str = "tidegate.v1";

/// A client refused before the upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status and its phrase.
    pub status: &'static str,
    /// One more header line, without its end.
    pub header: Option<&'static str>,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    fn new(status: &'static str, message: impl Into<String>) -> Self {
        Self { status, header: None, message: message.into() }
    }

    /// Bad or missing credentials.
    #[must_use]
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        let header = Some("WWW-Authenticate: Bearer");
        Self { status: "401 Unauthorized", header, message: message.into() }
    }

    /// The request did not come in time.
    #[must_use]
    pub(crate) fn timeout() -> Self {
        Self::new("408 Request Timeout", "the upgrade request did not come in time")
    }

    /// The gateway takes no more clients.
    #[must_use]
    pub(crate) fn stopping() -> Self {
        let header = Some("Retry-After: 1");
        Self { header, ..Self::new("503 Service Unavailable", "the gateway is stopping") }
    }

    /// The response as bytes.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let header = self.header.map(|line| format!("{line}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {}\r\n{header}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}\n",
            self.status,
            self.message.len() + 1,
            self.message
        )
        .into_bytes()
    }
}

/// Why there was no upgrade.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The client is to be told.
    #[error("refused with {}: {}", .0.status, .0.message)]
    Refused(Refusal),
    /// The socket failed or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A good upgrade request, not answered yet.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The first credentials found, unjudged.
    pub token: Option<String>,
    /// `?user=`, for mode none.
    pub user: Option<String>,
    /// `?device=`.
    pub device: Option<String>,
    /// `?resume=1`: the first frame is an `Identify` with positions.
    pub resume: bool,
    response: Vec<u8>,
    rest: Vec<u8>,
}

impl Upgrade {
    /// Reads and judges a request. Returns early on the first byte that is
    /// too much; the caller holds the deadline.
    pub(crate) async fn read(stream: &mut TcpStream, origins: &[String]) -> Result<Self, HandshakeError> {
        let (request, rest) = read_request(stream).await?;
        Ok(judge(&request, rest, origins)?)
    }

    /// The 101, still to be sent, and what the client sent past its request.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.response, self.rest)
    }
}

async fn read_request(stream: &mut TcpStream) -> Result<(Request, Vec<u8>), HandshakeError> {
    let mut head = Vec::with_capacity(1024);
    loop {
        // One parse per request: bytes that trickle in are only searched, and
        // only around where they joined.
        let from = head.len().saturating_sub(3);
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let ended = head.get(from..).is_some_and(|new| new.windows(4).any(|four| four == b"\r\n\r\n"));
        if ended {
            break;
        }
        if head.len() > MAX_HEAD {
            return Err(too_long().into());
        }
    }
    match Request::try_parse(&head) {
        Ok(Some((size, _))) if size > MAX_HEAD => Err(too_long().into()),
        Ok(Some((size, request))) => Ok((request, head.split_off(size))),
        Ok(None) => Err(Refusal::new("400 Bad Request", "malformed request").into()),
        Err(error) => Err(refusal(&error).into()),
    }
}

fn too_long() -> Refusal {
    Refusal::new("431 Request Header Fields Too Large", "the request is longer than 8 KiB")
}

/// What the library found wrong, as a status.
fn refusal(error: &WsError) -> Refusal {
    match error {
        WsError::Protocol(ProtocolError::WrongHttpMethod) => {
            let header = Some("Allow: GET");
            Refusal { header, ..Refusal::new("405 Method Not Allowed", "only GET is served here") }
        }
        WsError::Protocol(ProtocolError::WrongHttpVersion) => {
            Refusal::new("505 HTTP Version Not Supported", "HTTP/1.1 is needed")
        }
        WsError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            let header = Some("Sec-WebSocket-Version: 13");
            Refusal { header, ..Refusal::new("426 Upgrade Required", "Sec-WebSocket-Version must be 13") }
        }
        WsError::Capacity(CapacityError::TooManyHeaders) => {
            Refusal::new("431 Request Header Fields Too Large", "too many headers")
        }
        other => Refusal::new("400 Bad Request", other.to_string()),
    }
}

fn judge(request: &Request, rest: Vec<u8>, origins: &[String]) -> Result<Upgrade, Refusal> {
    if request.uri().path() != PATH {
        return Err(Refusal::new("404 Not Found", "the WebSocket endpoint is /ws"));
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let body = header("content-length").is_some_and(|length| length.trim() != "0");
    if body || request.headers().contains_key("transfer-encoding") {
        return Err(Refusal::new("400 Bad Request", "an upgrade request has no body"));
    }
    if request.headers().get_all("host").iter().count() != 1 {
        return Err(Refusal::new("400 Bad Request", "exactly one Host header is needed"));
    }
    let mut response = create_response(request).map_err(|error| refusal(&error))?;
    if let Some(origin) = header("origin").filter(|_| !origins.is_empty()) {
        // Only browsers send one; what they send cannot be forged by a page.
        if !origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return Err(Refusal::new("403 Forbidden", "this origin is not allowed"));
        }
    }
    let offered: Vec<&str> = request
        .headers()
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if offered.contains(&SUBPROTOCOL) {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
    } else if !offered.is_empty() {
        return Err(Refusal::new("400 Bad Request", "the subprotocol spoken is tidegate.v1"));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let bearer = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let offered_token = offered.iter().find_map(|protocol| protocol.strip_prefix("bearer."));
    let token = bearer.or(offered_token).map(str::to_owned).or(query.access_token);
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response)
        .map_err(|error| Refusal::new("400 Bad Request", error.to_string()))?;
    Ok(Upgrade { token, user: query.user, device: query.device, resume: query.resume, response: bytes, rest })
}
