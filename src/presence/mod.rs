//! Port: who is online, in all gateways together.
//!
//! A user is online from the first heartbeat on, until none has come for the
//! window; whose last device says goodbye has the grace to come back. Two
//! backends, held to one suite (`conformance`): in this process ([`Online`]),
//! and in Redis, where the same is done in scripts.
//!
//! Promises of every backend:
//! - A change of a user, online or offline, is made in one atomic step, told
//!   to exactly one caller, and has a version above all versions before it,
//!   of any user. What a look says later is never older.
//! - A heartbeat from before a farewell does not undo it; one from after it
//!   does, whichever is heard of first.
//! - While it is not known who was heard, because nobody said anything for
//!   some seconds or the data is new, only farewells make anybody gone.
//! - Counts are kept, never made by going through users.
//! - Time is the store's: what a gateway's own clock says matters nowhere.
//!
//! [`Watches`] is what one gateway knows of whom its connections watch.
//!
//! Called by `pipeline`, which gathers heartbeats and tells watchers.

#[cfg(test)]
mod conformance;
mod memory;
mod online;
mod redis;
mod watches;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use memory::{MemoryOnline, MemoryPresence};
pub(crate) use online::{CarriedOnline, Online};
pub(crate) use redis::RedisPresence;
pub(crate) use watches::{State, TooMany, Watches};

use crate::types::{GatewayRef, UserId, unix_micros};

/// Most users that one step takes for gone.
const MOST_GONE: usize = 1_000;
/// How long a gateway is told of changes after it said that it watches.
pub(crate) const WATCHING: Duration = Duration::from_secs(30);

/// The backend failed; whether the step was done is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PresenceError {
    /// Redis gave no answer, or a wrong one.
    #[error(transparent)]
    Redis(#[from] crate::redis::RedisError),
}

/// When somebody is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Silence after which a user is gone, ms.
    pub window_ms: i64,
    /// Time after a farewell in which a user may come back, ms.
    pub grace_ms: i64,
    /// Time after a silence of everybody in which nobody is taken for gone, ms.
    pub hold_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { window_ms: 180_000, grace_ms: 5_000, hold_ms: 50_000 }
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Whose.
    pub user: UserId,
    /// How long ago, ms.
    pub age_ms: i64,
}

/// A user's last device has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Farewell {
    /// Whose.
    pub user: UserId,
    /// When, by the store's clock, unix ms.
    pub at: i64,
}

/// A user came online or went offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// Who.
    pub user: UserId,
    /// Which of both.
    pub online: bool,
    /// Since when, unix ms: the first heartbeat, or the last sign of life.
    pub since: i64,
    /// Above that of every change before it.
    pub version: u64,
}

/// What a step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stepped {
    /// In the order of their versions.
    pub changes: Vec<Change>,
    /// Gateways that are to be told of them.
    pub watching: Vec<GatewayRef>,
    /// Users that are online now.
    pub online: u64,
}

/// What is known of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Who.
    pub user: UserId,
    /// Whether online.
    pub online: bool,
    /// Since when, unix ms; 0 = not known.
    pub since: i64,
    /// The last sign of life, unix ms; 0 = not known.
    pub last_seen: i64,
    /// Of the change that made it so; of one who is gone any version since.
    pub version: u64,
}

impl Found {
    const fn gone(user: UserId, left: i64, version: u64) -> Self {
        Self { user, online: false, since: left, last_seen: left, version }
    }
}

/// What is known of some users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// In the order they were asked for.
    pub found: Vec<Found>,
    /// Whether who is not there is gone for sure.
    pub is_settled: bool,
}

/// How many are online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headcount {
    /// Users.
    pub users: u64,
    /// When, by the store's clock, unix ms.
    pub as_of: i64,
}

/// What a gateway has to say and to ask, in one round trip.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step<'a> {
    /// Each user once.
    pub heard: &'a [Heard],
    /// After them.
    pub farewells: &'a [Farewell],
    /// Whether this gateway is to be told of changes, for [`WATCHING`].
    pub watching: bool,
    /// Who is looked at afterwards.
    pub look: &'a [UserId],
}

/// The backends.
#[derive(Debug)]
pub(crate) enum Presence {
    /// In this process.
    Memory(MemoryPresence),
    /// In Redis.
    Redis(RedisPresence),
}

impl Presence {
    /// Of a gateway that stands alone.
    #[must_use]
    pub(crate) fn alone(own: GatewayRef, rules: Rules) -> Self {
        Self::Memory(MemoryPresence::new(Arc::new(MemoryOnline::new(rules)), own))
    }

    /// Takes what happened here, finds who is gone, and looks.
    pub(crate) async fn step(&self, step: Step<'_>) -> Result<(Stepped, Look), PresenceError> {
        match self {
            Self::Memory(presence) => Ok(presence.step(unix_micros(), step)),
            Self::Redis(presence) => presence.step(step).await,
        }
    }

    /// What is known of these users.
    pub(crate) async fn look(&self, users: &[UserId]) -> Result<Look, PresenceError> {
        match self {
            Self::Memory(presence) => Ok(presence.look(unix_micros(), users)),
            Self::Redis(presence) => presence.look(users).await,
        }
    }

    /// Users heard within `window`.
    pub(crate) async fn online_count(&self, window: Duration) -> Result<Headcount, PresenceError> {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        match self {
            Self::Memory(presence) => Ok(presence.count(unix_micros(), window)),
            Self::Redis(presence) => presence.count(window).await,
        }
    }
}
