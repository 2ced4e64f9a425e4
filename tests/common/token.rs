//! Signed tokens and the configuration that accepts them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::gateway::Options;

/// The secret the gateway under test trusts.
pub const SECRET: &str = "a-secret-of-the-tests-of-40-bytes-length";

/// A gateway that takes HS256 tokens of [`SECRET`].
pub fn jwt_options() -> Options {
    Options::new()
        .env("TIDEGATE_AUTH_MODE", "jwt")
        .config(format!("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"))
}

/// A token of `user` and `device`, good for an hour.
pub fn token(user: i64, device: &str) -> String {
    sign(&json!({"sub": user.to_string(), "device": device, "exp": now() + 3600}), SECRET)
}

/// Any claims under any secret.
pub fn sign(claims: &Value, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
