//! Groups and who is in them.

use crate::types::{GatewayRef, UserId};

/// What a member is in a group. The gateway only keeps it: what a role may do
/// is the backend's to decide, which alone changes groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Role {
    /// Whose group it is.
    Owner,
    /// Who runs it.
    Admin,
    /// Anybody else.
    #[default]
    Member,
}

impl Role {
    /// As it is stored and told.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// Reads it.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member].into_iter().find(|role| role.as_str() == text)
    }
}

/// What a new member sees of what was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum History {
    /// Nothing.
    #[default]
    SinceJoining,
    /// Everything that is kept.
    Full,
}

/// A member's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// What it is.
    pub role: Role,
    /// It sees what has a larger seq.
    pub since_seq: i64,
    /// May not send until this unix ms; 0 = may.
    pub mute_until: i64,
}

/// Who is to hear of something in a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Audience {
    /// Counts the changes of its members.
    pub mver: u64,
    /// How many members there are.
    pub members: u64,
    /// Gateways with a member online, as they said themselves.
    pub gateways: Vec<GatewayRef>,
}

/// A conversation, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// Its history.
    pub epoch: u64,
    /// The last seq.
    pub top: i64,
    /// The first seq that is still there; see `Page`.
    pub first_available: i64,
    /// Counts the changes of its members.
    pub mver: u64,
    /// How many members there are; 2 for `p2p:`.
    pub members: u64,
    /// When it was created, unix ms.
    pub created_at: i64,
    /// What new members see.
    pub history: History,
}

/// What became of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Created {
    /// It was made.
    New(Description),
    /// It was there, with the same members.
    Same(Description),
    /// It was there, with others.
    Other,
}

/// A page of members, by user id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MembersPage {
    /// Who, and as what.
    pub members: Vec<(UserId, Member)>,
    /// Whether more follow.
    pub has_more: bool,
}

/// What to change about a member, or to make of a new one; `None` = leave it,
/// or the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// Its role.
    pub role: Option<Role>,
    /// May not send until this unix ms; 0 = may.
    pub mute_until: Option<i64>,
    /// What a new member sees; default: as the group says.
    pub history: Option<History>,
}

/// What became of one user's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// There is no such group, or, where one is to be removed, no such member.
    NotFound,
    /// The user is on the blacklist and cannot join.
    Blocked,
    /// It was so already.
    Same,
    /// The user joined.
    Joined(Member),
    /// The entry is another one.
    Updated {
        /// As it was.
        before: Member,
        /// As it is.
        after: Member,
    },
    /// The user is out.
    Removed,
}

/// A change and who is to hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What became of it.
    pub changed: Changed,
    /// After it.
    pub audience: Audience,
}

/// What a gateway learns when one of its users is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The user's entry.
    pub member: Member,
    /// Counts the changes of the members.
    pub mver: u64,
    /// How many members there are.
    pub members: u64,
    /// Where the log ends, read after the interest was registered.
    pub top: super::Top,
}

/// Entries of some users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roster {
    /// Of the whole group.
    pub audience: Audience,
    /// One per user asked for; `None` = not a member.
    pub members: Vec<Option<Member>>,
}
