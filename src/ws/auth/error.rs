//! What is wrong with credentials, and with the keys to judge them.

use crate::config::KeyError;

/// Why credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// A user name where a token is due.
    #[error("a token is required")]
    TokenRequired,
    /// A token where there is no key to judge it.
    #[error("tokens are not accepted: auth.mode is \"none\"")]
    TokenNotAccepted,
    /// Mode none without a user.
    #[error("the user parameter is required")]
    UserMissing,
    /// Longer than any honest token.
    #[error("the token is longer than 4096 bytes")]
    TooLong,
    /// Not a token, or not one that can be read.
    #[error("the token is malformed")]
    Malformed,
    /// No key is for the token's algorithm.
    #[error("no key is for the token's algorithm")]
    Algorithm,
    /// No key answers to the token's `kid`.
    #[error("no key answers to the token's kid")]
    UnknownKey,
    /// Signed by somebody else, or changed since.
    #[error("the token's signature is wrong")]
    Signature,
    /// A required claim is not there or not of its type.
    #[error("the token has no valid claim {0}")]
    MissingClaim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is somebody else.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` is somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// `sub` or `user` is not a user id.
    #[error("the user id is not an integer from 1 to 9223372036854775807")]
    User,
    /// The device id is not one.
    #[error("the device id is not 1-64 characters of [A-Za-z0-9_.-]")]
    Device,
}

impl AuthError {
    /// The word it is counted under.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::TokenRequired => "token_required",
            Self::TokenNotAccepted => "token_not_accepted",
            Self::UserMissing => "user_missing",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::User => "user",
            Self::Device => "device",
        }
    }
}

/// Why no authenticator could be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthSetupError {
    /// Tokens without a key to verify them.
    #[error("auth.mode = \"jwt\" needs at least one key")]
    NoKeys,
    /// Material that does not fit its algorithm.
    #[error("auth.keys: key {index}: {source}")]
    Key {
        /// Which key, from 0.
        index: usize,
        /// What is wrong.
        source: KeyError,
    },
}
