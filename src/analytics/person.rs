//! Who is counted: a user, or an installation nobody has signed in on.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::types::UserId;

/// Names one installation of an application: 8-64 of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InstallId(Box<str>);

/// Not an install id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 8-64 characters of [A-Za-z0-9_-]")]
pub(crate) struct InstallIdError;

impl InstallId {
    /// Validates.
    pub(crate) fn new(text: &str) -> Result<Self, InstallIdError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let is_good = (8..=64).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_good { Ok(Self(text.into())) } else { Err(InstallIdError) }
    }

    /// The text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whoever counts once a day.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Person {
    /// Signed in.
    User(UserId),
    /// Not signed in.
    Install(InstallId),
}

impl Person {
    /// The user if there is one, else the installation.
    #[must_use]
    pub(crate) fn of(user: Option<UserId>, install: Option<InstallId>) -> Option<Self> {
        user.map(Self::User).or_else(|| install.map(Self::Install))
    }

    /// A number that stands for it; two installations have the same one as
    /// often as two of 2^63 drawn numbers are the same.
    #[must_use]
    pub(super) fn number(&self) -> u64 {
        const INSTALL: u64 = 1 << 63;
        match self {
            Self::User(user) => user.get().unsigned_abs() & !INSTALL,
            Self::Install(install) => xxh3_64(install.as_str().as_bytes()) | INSTALL,
        }
    }
}

/// `u42`, `i<install id>`: no two are the same.
impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "u{user}"),
            Self::Install(install) => write!(f, "i{}", install.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other builds know people by these numbers: they are handed over.
    #[test]
    fn a_person_has_the_same_number_in_every_build() {
        let user = Person::User(UserId::new(42).unwrap());
        let install = |id: &str| Person::Install(InstallId::new(id).unwrap());
        assert_eq!(user.number(), 42);
        assert_eq!(install("install-1").number(), 9_726_820_561_618_491_029);
        assert_ne!(install("install-1").number(), install("install-2").number());
    }
}
