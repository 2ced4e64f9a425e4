//! Identifiers: validated once, at the edge, and trusted from there on.

use std::fmt;
use std::sync::Arc;

/// Why an identifier was refused; the text names what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a positive 64-bit integer.
    #[error("user id must be an integer from 1 to 9223372036854775807")]
    User,
    /// Wrong length or characters in a device id.
    #[error("device id must be 1-64 characters of [A-Za-z0-9_.-]")]
    Device,
    /// Wrong length or characters in a gateway id.
    #[error("gateway id must be 1-64 characters of [A-Za-z0-9_.-] or letters of any script")]
    Gateway,
    /// Neither `p2p:<lo>:<hi>` nor `g:<name>`.
    #[error(
        "conversation id must be p2p:<lo>:<hi> with lo < hi, or g: and 1-64 characters of [A-Za-z0-9_.-]"
    )]
    Conversation,
}

/// A user: a positive integer; 0 is the system, which has no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UserId(i64);

impl UserId {
    /// The system, as a sender of messages.
    pub(crate) const SYSTEM: Self = Self(0);

    /// A user that can connect.
    pub(crate) const fn new(id: i64) -> Result<Self, IdError> {
        if id > 0 { Ok(Self(id)) } else { Err(IdError::User) }
    }

    /// Reads the canonical decimal form: no sign, no leading zero.
    pub(crate) fn parse(text: &str) -> Result<Self, IdError> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        if !canonical {
            return Err(IdError::User);
        }
        text.parse().map_err(|_| IdError::User).and_then(Self::new)
    }

    /// The number.
    #[must_use]
    pub(crate) const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_id_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}

/// A name of 1-64 characters of `[A-Za-z0-9_.-]`.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(is_id_byte)
}

/// Whether a client message id is 1-64 of `[A-Za-z0-9_.:-]`.
#[must_use]
pub(crate) fn valid_client_msg_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| is_id_byte(b) || b == b':')
}

/// One device of a user. Shared, because the hub, the route and the
/// connection all hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId(Arc<str>);

impl DeviceId {
    /// Validates.
    pub(crate) fn new(text: &str) -> Result<Self, IdError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(IdError::Device) }
    }

    /// The text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One gateway, stable over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(Arc<str>);

impl GatewayId {
    /// Validates.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let chars = text.chars().count();
        let allowed = |c: char| c.is_alphabetic() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
        if (1..=64).contains(&chars) && text.chars().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Gateway)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of the channel this gateway listens on,
    /// `10000 + fnv1a64(id) % 50000`. Two gateways may share one.
    #[must_use]
    pub fn channel(&self) -> u64 {
        10_000 + fnv1a64(self.0.as_bytes()) % 50_000
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a, 64 bit.
#[must_use]
pub(crate) fn fnv1a64(bytes: &[u8]) -> u64 {
    fnv1a64_from(FNV_BASIS, bytes)
}

/// Where FNV-1a starts.
pub(super) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, going on from `hash`.
pub(super) fn fnv1a64_from(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Names one cold start of a gateway: unix microseconds, only ever growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A gateway in one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GatewayRef {
    /// Its name.
    pub id: GatewayId,
    /// Its cold start.
    pub epoch: Epoch,
}

/// One connection, unique within a gateway epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_vectors() {
        let channel = |id: &str| GatewayId::new(id).unwrap().channel();
        assert_eq!(channel("gw-1"), 10_065);
        assert_eq!(channel("gw-2"), 25_432);
        assert_eq!(channel("gateway-a"), 58_183);
        assert_eq!(channel("深圳-1"), 15_655);
        assert_eq!(channel("gw-28"), 22_656);
        assert_eq!(channel("gw-1302"), 22_656);
    }

    #[test]
    fn user_ids_are_canonical() {
        assert_eq!(UserId::parse("42").unwrap().get(), 42);
        for bad in ["", "0", "-1", "+1", "01", "1 ", "9223372036854775808", "x", "１"] {
            assert_eq!(UserId::parse(bad), Err(IdError::User), "{bad}");
        }
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        assert!(DeviceId::new("phone-1_a.B").is_ok());
        for bad in ["", "a b", "a{b}", "a:b", "ü", &"x".repeat(65)] {
            assert!(DeviceId::new(bad).is_err(), "{bad}");
        }
        assert!(GatewayId::new("深圳-1").is_ok());
        for bad in ["", "a b", "a|b", "a{b", &"x".repeat(65)] {
            assert!(GatewayId::new(bad).is_err(), "{bad}");
        }
    }
}
