//! Tokens of the clients: HS256, as a gateway of `auth.mode = "jwt"` wants
//! them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// How long a token is good, seconds.
const LIFE: u64 = 24 * 3600;

/// Signs with one secret.
pub(crate) struct Minter(EncodingKey);

impl Minter {
    /// With a secret of at least 32 bytes.
    pub(crate) fn new(secret: &str) -> Self {
        Self(EncodingKey::from_secret(secret.as_bytes()))
    }

    /// A token of `user`.
    pub(crate) fn mint(&self, user: u64) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?.as_secs();
        let claims = json!({"sub": user.to_string(), "iat": now, "exp": now + LIFE});
        encode(&Header::default(), &claims, &self.0).context("cannot sign")
    }
}
