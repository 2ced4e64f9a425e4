//! Who a client is.
//!
//! Owns the judgement of credentials and nothing of how they travel: the
//! handshake and the in-band `Identify` hand in what they found and get an
//! [`Identity`] or the reason why not. Built once, shared by all connections,
//! without state of its own.
//!
//! A key verifies only its own algorithm, whatever a token's header asks for,
//! so neither `alg: none` nor a public key used as a shared secret gets in.
//! No error holds any part of a token.

mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub(crate) use error::{AuthError, AuthSetupError};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{AuthConfig, JwtAlgorithm, JwtConfig, JwtKey};
use crate::types::{DeviceId, UserId};

/// Longest token, bytes; looked at before anything is decoded.
const MAX_TOKEN_BYTES: usize = 4096;

/// Device of a client that names none.
const DEFAULT_DEVICE: &str = "default";

/// A client whose credentials were good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Who.
    pub user: UserId,
    /// On what.
    pub device: DeviceId,
    /// When the credentials run out, unix seconds, forgiven clock difference
    /// included; `None` = never.
    pub expires_at: Option<i64>,
}

/// What clients must present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// The name of a user.
    None,
    /// A signed token.
    Jwt,
}

impl std::fmt::Debug for Authenticator {
    /// Without its keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("mode", &self.mode()).finish_non_exhaustive()
    }
}

/// Judges credentials.
pub(crate) struct Authenticator {
    /// `None` = mode none.
    jwt: Option<Verifier>,
}

impl Authenticator {
    /// Parses the keys.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, AuthSetupError> {
        let jwt = match config {
            AuthConfig::None => None,
            AuthConfig::Jwt(jwt) => Some(Verifier::new(jwt)?),
        };
        Ok(Self { jwt })
    }

    /// What clients must present.
    #[must_use]
    pub(crate) const fn mode(&self) -> AuthMode {
        if self.jwt.is_some() { AuthMode::Jwt } else { AuthMode::None }
    }

    /// Judges a token. The device is the token's, else `query_device`, else
    /// `default`; an empty `query_device` counts as none.
    pub(crate) fn verify(&self, token: &str, query_device: Option<&str>) -> Result<Identity, AuthError> {
        self.jwt.as_ref().ok_or(AuthError::TokenNotAccepted)?.verify(token, query_device)
    }

    /// Takes a client at its word; mode none only. An empty `device` counts as
    /// none.
    pub(crate) fn anonymous(&self, user: Option<&str>, device: Option<&str>) -> Result<Identity, AuthError> {
        if self.jwt.is_some() {
            return Err(AuthError::TokenRequired);
        }
        let user = user.ok_or(AuthError::UserMissing)?;
        let user = UserId::parse(user).map_err(|_| AuthError::User)?;
        Ok(Identity { user, device: device_or_default(device)?, expires_at: None })
    }
}

/// What tokens are checked with.
struct Verifier {
    keys: Vec<Key>,
    leeway: Duration,
}

struct Key {
    algorithm: JwtAlgorithm,
    kid: Option<String>,
    key: DecodingKey,
    /// Everything but the signature; allows this key's algorithm alone.
    rules: Validation,
}

/// The part of a token's header that selects the key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

/// The claims that make an identity. Of any type, so that a wrong one is
/// reported by its name.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    device: Option<Value>,
    exp: Option<Value>,
}

impl Verifier {
    fn new(config: &JwtConfig) -> Result<Self, AuthSetupError> {
        if config.keys.is_empty() {
            return Err(AuthSetupError::NoKeys);
        }
        let key = |(index, key): (usize, &JwtKey)| {
            let algorithm = key.algorithm;
            let kid = key.kid.clone();
            let key = key.decoding_key().map_err(|source| AuthSetupError::Key { index, source })?;
            Ok(Key { algorithm, kid, key, rules: rules(config, algorithm) })
        };
        let keys = config.keys.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        Ok(Self { keys, leeway: config.leeway })
    }

    fn verify(&self, token: &str, query_device: Option<&str>) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        let header = Header::of(token).ok_or(AuthError::Malformed)?;
        let of_algorithm = || self.keys.iter().filter(|key| key.algorithm.as_str() == header.alg);
        if of_algorithm().next().is_none() {
            return Err(AuthError::Algorithm);
        }
        // Keys and tokens without a kid go with any.
        let answers = |key: &&Key| key.kid.is_none() || header.kid.is_none() || key.kid == header.kid;
        let mut verdict = Err(AuthError::UnknownKey);
        for key in of_algorithm().filter(answers) {
            verdict = decode::<Claims>(token, &key.key, &key.rules).map_err(|error| cause(&error));
            if !matches!(verdict, Err(AuthError::Signature)) {
                break;
            }
        }
        self.identity(&verdict?.claims, query_device)
    }

    fn identity(&self, claims: &Claims, query_device: Option<&str>) -> Result<Identity, AuthError> {
        let sub = claims.sub.as_ref().ok_or(AuthError::MissingClaim("sub"))?;
        let user = sub.as_str().and_then(|sub| UserId::parse(sub).ok()).ok_or(AuthError::User)?;
        let device = match &claims.device {
            Some(Value::String(device)) => DeviceId::new(device).map_err(|_| AuthError::Device)?,
            Some(_) => return Err(AuthError::Device),
            None => device_or_default(query_device)?,
        };
        let exp = claims.exp.as_ref().and_then(seconds).ok_or(AuthError::MissingClaim("exp"))?;
        let leeway = i64::try_from(self.leeway.as_secs()).unwrap_or(i64::MAX);
        Ok(Identity { user, device, expires_at: Some(exp.saturating_add(leeway)) })
    }
}

impl Header {
    fn of(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        let header: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        header.crit.is_none().then_some(header)
    }
}

fn rules(config: &JwtConfig, algorithm: JwtAlgorithm) -> Validation {
    let mut rules = Validation::new(algorithm.library());
    rules.leeway = config.leeway.as_secs();
    rules.validate_nbf = true;
    let mut required = vec!["exp"];
    // The library checks these two where present, and their absence only when told.
    if let Some(issuer) = &config.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &config.audience {
        rules.set_audience(&[audience]);
        required.push("aud");
    }
    rules.set_required_spec_claims(&required);
    rules
}

fn cause(error: &Error) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm => AuthError::Algorithm,
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            let known = ["exp", "nbf", "iss", "aud"].into_iter().find(|known| known == claim);
            known.map_or(AuthError::Malformed, AuthError::MissingClaim)
        }
        _ => AuthError::Malformed,
    }
}

fn device_or_default(device: Option<&str>) -> Result<DeviceId, AuthError> {
    let device = device.filter(|device| !device.is_empty()).unwrap_or(DEFAULT_DEVICE);
    DeviceId::new(device).map_err(|_| AuthError::Device)
}

/// A NumericDate: it may have a fraction, and lie beyond any clock.
fn seconds(date: &Value) -> Option<i64> {
    let whole =
        date.as_u64().or_else(|| Some(Duration::try_from_secs_f64(date.as_f64()?).ok()?.as_secs()))?;
    Some(i64::try_from(whole).unwrap_or(i64::MAX))
}
