//! Where to connect, and as whom.

use tokio_tungstenite::tungstenite::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;

use super::error::ClientError;
use crate::types::DeviceId;

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `ws://host[:port]/path[?query]`.
    pub(crate) url: String,
    /// Named in the query when there is no token.
    pub(crate) user: Option<i64>,
    /// The device, named in the query; a token that names one wins.
    pub(crate) device: DeviceId,
    /// A JWT, sent as `Authorization: Bearer`.
    pub(crate) token: Option<String>,
}

impl Endpoint {
    /// `host:port` of the TCP connection.
    pub(super) fn address(&self) -> Result<(String, u16), ClientError> {
        let uri = self.uri()?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok((host, uri.port_u16().unwrap_or(80)))
    }

    /// The handshake.
    pub(super) fn request(&self) -> Result<ClientRequestBuilder, ClientError> {
        let uri = self.uri()?;
        let mut query = uri.query().map(|query| format!("{query}&")).unwrap_or_default();
        if let (Some(user), None) = (self.user, &self.token) {
            query.push_str(&format!("user={user}&"));
        }
        // A device id needs no escaping: its alphabet is that of a URL.
        query.push_str(&format!("device={}", self.device));
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let target = format!("ws://{authority}{}?{query}", uri.path());
        let target: Uri = target.parse().map_err(|_| self.refuse("not a URL"))?;
        let mut request = ClientRequestBuilder::new(target).with_sub_protocol("tidegate.v1");
        if let Some(token) = &self.token {
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(ClientError::Token);
            }
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        Ok(request)
    }

    fn uri(&self) -> Result<Uri, ClientError> {
        let uri: Uri = self.url.parse().map_err(|_| self.refuse("not a URL"))?;
        match uri.scheme_str() {
            Some("ws") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
            Some("wss") => Err(self.refuse(
                "wss:// is not supported here: this client does not speak TLS, connect to the gateway behind the proxy with ws://",
            )),
            _ => Err(self.refuse("expected ws://host:port/path")),
        }
    }

    fn refuse(&self, why: &'static str) -> ClientError {
        ClientError::Url { url: self.url.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;

    fn endpoint(url: &str, user: Option<i64>, token: Option<&str>) -> Endpoint {
        Endpoint {
            url: url.to_owned(),
            user,
            device: DeviceId::new("phone").unwrap(),
            token: token.map(str::to_owned),
        }
    }

    #[test]
    fn the_handshake_names_user_and_device_or_carries_the_token() {
        let request = endpoint("ws://h:7700/ws", Some(1), None).request().unwrap();
        let request = request.into_client_request().unwrap();
        assert_eq!(request.uri().to_string(), "ws://h:7700/ws?user=1&device=phone");
        assert_eq!(request.headers()["sec-websocket-protocol"], "tidegate.v1");
        assert!(!request.headers().contains_key("authorization"));

        let request = endpoint("ws://h/ws?a=b", Some(1), Some("x.y.z")).request().unwrap();
        let request = request.into_client_request().unwrap();
        assert_eq!(request.uri().to_string(), "ws://h/ws?a=b&device=phone");
        assert_eq!(request.headers()["authorization"], "Bearer x.y.z");
    }

    #[test]
    fn addresses_are_read_and_other_schemes_refused() {
        let address = |url| endpoint(url, None, None).address();
        assert_eq!(address("ws://127.0.0.1:7700/ws").unwrap(), ("127.0.0.1".to_owned(), 7700));
        assert_eq!(address("ws://[::1]/ws").unwrap(), ("::1".to_owned(), 80));
        assert!(address("wss://h/ws").unwrap_err().to_string().contains("does not speak TLS"));
        for bad in ["", "h", "http://h/", "ws:///x", "/ws"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(matches!(endpoint("ws://h/", None, Some("a\nb")).request(), Err(ClientError::Token)));
    }
}
