//! Conversation ids.

use std::fmt;
use std::sync::Arc;

use super::ids::{FNV_BASIS, IdError, UserId, fnv1a64_from, is_name};

/// An ordered log of messages with members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ConversationId {
    /// Between two users, lower id first; needs no creation.
    P2p(UserId, UserId),
    /// A named group, without its `g:`.
    Group(Arc<str>),
}

impl ConversationId {
    /// Reads `p2p:<lo>:<hi>` (canonical decimal, lo < hi) or `g:<name>`.
    pub(crate) fn parse(text: &str) -> Result<Self, IdError> {
        if let Some(pair) = text.strip_prefix("p2p:") {
            let (lo, hi) = pair.split_once(':').ok_or(IdError::Conversation)?;
            let parse = |part| UserId::parse(part).map_err(|_| IdError::Conversation);
            let (lo, hi) = (parse(lo)?, parse(hi)?);
            return if lo < hi { Ok(Self::P2p(lo, hi)) } else { Err(IdError::Conversation) };
        }
        match text.strip_prefix("g:") {
            Some(name) if is_name(name) => Ok(Self::Group(name.into())),
            _ => Err(IdError::Conversation),
        }
    }

    /// The conversation of two different users.
    #[must_use]
    pub(crate) fn between(a: UserId, b: UserId) -> Self {
        if a < b { Self::P2p(a, b) } else { Self::P2p(b, a) }
    }

    /// A number for it, the same in every process: FNV-1a over a tag and what
    /// names it. Different conversations have different ones, as far as 64
    /// bits go.
    #[must_use]
    pub(crate) fn key(&self) -> u64 {
        match self {
            Self::P2p(lo, hi) => {
                let hash = fnv1a64_from(FNV_BASIS, &lo.get().to_le_bytes());
                fnv1a64_from(hash, &hi.get().to_le_bytes())
            }
            Self::Group(name) => fnv1a64_from(FNV_BASIS ^ 1, name.as_bytes()),
        }
    }

    /// What [`Self::parse`] reads.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let (mut low, mut high) = (itoa::Buffer::new(), itoa::Buffer::new());
        match self {
            Self::P2p(lo, hi) => ["p2p:", low.format(lo.get()), ":", high.format(hi.get())].concat(),
            Self::Group(name) => ["g:", name].concat(),
        }
    }

    /// Whether it is a group.
    #[must_use]
    pub(crate) const fn is_group(&self) -> bool {
        matches!(self, Self::Group(_))
    }

    /// The other user of a p2p conversation; `None` when `user` is not in it
    /// or it is a group.
    #[must_use]
    pub(crate) fn peer_of(&self, user: UserId) -> Option<UserId> {
        match *self {
            Self::P2p(lo, hi) if lo == user => Some(hi),
            Self::P2p(lo, hi) if hi == user => Some(lo),
            _ => None,
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        for good in ["p2p:1:2", "p2p:9:10", "g:a", "g:Team_1.x-y"] {
            assert_eq!(ConversationId::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "p2p:2:1",
            "p2p:1:1",
            "p2p:01:2",
            "p2p:1",
            "p2p:1:2:3",
            "p2p:0:1",
            "g:",
            "g:{a}",
            "x:1",
            "g:a:b",
        ] {
            assert_eq!(ConversationId::parse(bad), Err(IdError::Conversation), "{bad}");
        }
    }
}
