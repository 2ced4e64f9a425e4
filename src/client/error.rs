//! Why a client could not connect or had to stop.

use std::time::Duration;

use tokio_tungstenite::tungstenite;

use super::codec::CodecError;
use crate::types::CloseReason;

/// A connection that was not made, or ended. Each text is complete: there is
/// no further source to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The URL is not `ws://host[:port]/path`.
    #[error("{url}: {why}")]
    Url { url: String, why: &'static str },
    /// The token cannot be a header value.
    #[error("the token has characters that cannot be sent in a header")]
    Token,
    /// No TCP connection.
    #[error("cannot connect to {address}: {cause}; is a gateway running there?")]
    Connect { address: String, cause: std::io::Error },
    /// An HTTP answer other than 101.
    #[error("the gateway refused the connection: HTTP {status}{body}", body = after_colon(body))]
    Refused { status: u16, body: String },
    /// Credentials that were refused in band, or any other error instead of
    /// `Ready`.
    #[error("the gateway refused the connection: {0}")]
    Declined(String),
    /// The peer does not answer in time.
    #[error("{what} took longer than {limit:?}")]
    Deadline { what: &'static str, limit: Duration },
    /// A Close frame.
    #[error("the gateway closed the connection: {}", close_words(*code, reason))]
    Closed { code: u16, reason: String },
    /// The socket ended without a Close frame.
    #[error("the connection was lost")]
    Gone,
    /// The peer broke the rules of this protocol.
    #[error("the peer does not speak tidegate.v1: {0}")]
    Protocol(&'static str),
    /// An unreadable message.
    #[error("the peer does not speak tidegate.v1: {0}")]
    Codec(CodecError),
    /// An error below this protocol.
    #[error("{0}")]
    WebSocket(Box<tungstenite::Error>),
}

impl ClientError {
    /// Whether a further attempt with the same credentials makes sense.
    pub(crate) fn may_reconnect(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Token | Self::Declined(_) => false,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Closed { code, .. } => {
                let row =
                    CloseReason::ALL.iter().map(|reason| reason.row()).find(|row| row.code == Some(*code));
                row.is_none_or(|row| row.may_reconnect)
            }
            Self::Connect { .. }
            | Self::Deadline { .. }
            | Self::Gone
            | Self::Protocol(_)
            | Self::Codec(_)
            | Self::WebSocket(_) => true,
        }
    }
}

impl From<CodecError> for ClientError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::error::{Error, ProtocolError, SubProtocolError};
        match error {
            Error::Http(response) => Self::Refused {
                status: response.status().as_u16(),
                body: refusal(response.body().as_deref().unwrap_or_default()),
            },
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => Self::Gone,
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol)) => {
                Self::Protocol("it did not accept the subprotocol")
            }
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

/// The sentence in the body of a refusal: the `detail` or `title` of a problem
/// document, else the text itself.
fn refusal(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let field = |name| problem.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let sentence = field("detail").or_else(|| field("title")).unwrap_or_else(|| text.trim().to_owned());
    sentence.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn close_words(code: u16, reason: &str) -> String {
    if reason.is_empty() { format!("code {code}") } else { format!("{reason} ({code})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_endings_decides_about_reconnecting() {
        let closed = |code| ClientError::Closed { code, reason: String::new() }.may_reconnect();
        assert!(closed(1001) && closed(1012) && closed(4008) && closed(4999));
        assert!(!closed(4001) && !closed(4003) && !closed(4009));
        let refused = |status| ClientError::Refused { status, body: String::new() }.may_reconnect();
        assert!(refused(503) && refused(429) && !refused(401) && !refused(404));
    }

    #[test]
    fn refusals_speak_in_sentences() {
        assert_eq!(refusal(br#"{"title":"Unauthorized","detail":"no user"}"#), "no user");
        assert_eq!(refusal(b"go away\n"), "go away");
        let error = ClientError::Refused { status: 401, body: "no user".into() };
        assert_eq!(error.to_string(), "the gateway refused the connection: HTTP 401: no user");
        let error = ClientError::Closed { code: 4009, reason: "replaced".into() };
        assert_eq!(error.to_string(), "the gateway closed the connection: replaced (4009)");
    }
}
