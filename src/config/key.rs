//! Key material of tokens, in the form the verifier uses.
//!
//! Whatever a key can be wrong about is found here, when the configuration is
//! read, and not when the first client comes.

use jsonwebtoken::{Algorithm, DecodingKey};

use super::{JwtAlgorithm, JwtKey};

/// Shortest HS256 secret, bytes: as long as the hash, as RFC 7518 demands.
const SECRET_BYTES: usize = 32;

/// DER length of RSA public keys with 2048 to 4096 bits.
const RSA_DER_BYTES: std::ops::RangeInclusive<usize> = 256..=544;

/// Why key material was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// The HS256 secret is too short.
    #[error("an HS256 secret has at least 32 bytes")]
    ShortSecret,
    /// Not a PEM public key.
    #[error("expected a PEM public key (-----BEGIN PUBLIC KEY-----)")]
    NotPublicPem,
    /// A public key of another kind than the algorithm's.
    #[error("{} needs {}", .0.as_str(), .0.material())]
    WrongKind(JwtAlgorithm),
}

impl JwtAlgorithm {
    /// The `alg` of a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn material(self) -> &'static str {
        match self {
            Self::Hs256 => "a shared secret",
            Self::Rs256 => "an RSA public key of 2048 to 4096 bits",
            Self::Es256 => "a P-256 public key",
            Self::EdDsa => "an Ed25519 public key",
        }
    }

    /// The same in the words of the token library.
    pub(crate) const fn library(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl JwtKey {
    /// Parses the material for its one algorithm.
    pub(crate) fn decoding_key(&self) -> Result<DecodingKey, KeyError> {
        let material = self.material.expose().as_bytes();
        if self.algorithm == JwtAlgorithm::Hs256 {
            let long_enough = material.len() >= SECRET_BYTES;
            return if long_enough {
                Ok(DecodingKey::from_secret(material))
            } else {
                Err(KeyError::ShortSecret)
            };
        }
        // A private key has no business in a gateway.
        if !self.material.expose().trim_start().starts_with("-----BEGIN PUBLIC KEY-----") {
            return Err(KeyError::NotPublicPem);
        }
        let wrong_kind = |_| KeyError::WrongKind(self.algorithm);
        let key = match self.algorithm {
            JwtAlgorithm::Hs256 | JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(material),
            JwtAlgorithm::Es256 => DecodingKey::from_ec_pem(material),
            JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(material),
        }
        .map_err(wrong_kind)?;
        let der = key.try_get_as_bytes().map_err(wrong_kind)?;
        let plausible = match self.algorithm {
            JwtAlgorithm::Hs256 | JwtAlgorithm::Rs256 => RSA_DER_BYTES.contains(&der.len()),
            JwtAlgorithm::Es256 => true,
            // The library slices 32 bytes off without looking.
            JwtAlgorithm::EdDsa => der.len() == 32,
        };
        if !plausible {
            return Err(KeyError::WrongKind(self.algorithm));
        }
        // The library parses curve points only when it first verifies.
        jsonwebtoken::crypto::verify("", b"", &key, self.algorithm.library()).map_err(wrong_kind)?;
        Ok(key)
    }
}
