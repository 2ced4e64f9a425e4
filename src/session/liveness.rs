//! What a connection's signs of life mean. Pure: data in, verdict out.

use std::time::Duration;

use crate::hub::Peer;
use crate::types::CloseReason;

/// A reader that takes nothing for this long is out.
const STALL: u64 = 60_000;
/// The longest time between two looks at a connection: how late a deadline
/// that began after the last look may be seen.
const LOOK_EVERY: u64 = 10_000;

/// What the looks go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Clients are asked to show that they live this often.
    pub heartbeat: Duration,
    /// Time between two refreshes of a route.
    pub route_refresh: Duration,
    /// A message begun must end within this.
    pub message: Duration,
    /// Longest time between two looks at a connection that has been heard.
    pub pulse: Duration,
}

/// The verdict of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is to end.
    End(CloseReason),
    /// It lives.
    Alive {
        /// Monotonic ms of the next look.
        next_ms: u64,
        /// Its route wants a refresh.
        refresh: bool,
    },
}

/// Looks at one connection, at the `pace` its gateway keeps.
#[must_use]
pub(crate) fn look_at(peer: &Peer, now_ms: u64, now_unix_s: i64, pace: Pace) -> Look {
    let silence = ms(pace.heartbeat).saturating_mul(5) / 2;
    let (refresh_every, partial) = (ms(pace.route_refresh), ms(pace.message));
    let since = |then: u64| now_ms.saturating_sub(then);
    let overdue = |then: Option<u64>, limit| then.is_some_and(|then| since(then) >= limit);
    if now_unix_s >= peer.identity.expires_at {
        return Look::End(CloseReason::TokenExpired);
    }
    if overdue(peer.stalled_since(), STALL) {
        return Look::End(CloseReason::SlowConsumer);
    }
    if overdue(peer.partial_since(), partial) {
        return Look::End(CloseReason::Protocol);
    }
    if since(peer.last_seen()) >= silence {
        return Look::End(CloseReason::HeartbeatTimeout);
    }
    // Only heartbeats keep a route alive: silence lets it run out. A bind
    // that is still owed is not put off.
    let heard = peer.last_seen() >= peer.refreshed();
    let refresh = (heard && since(peer.refreshed()) >= refresh_every) || peer.bound() == 0;
    let left = peer.identity.expires_at.saturating_sub(now_unix_s).saturating_mul(1_000);
    let expiry_ms = now_ms.saturating_add(u64::try_from(left).unwrap_or(0));
    let next_ms = [
        Some(now_ms + LOOK_EVERY),
        Some(peer.last_seen() + silence),
        Some(now_ms + refresh_every),
        Some(expiry_ms),
        peer.stalled_since().map(|then| then + STALL),
        peer.partial_since().map(|then| then + partial),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(now_ms + LOOK_EVERY);
    Look::Alive { next_ms: next_ms.max(now_ms + 1), refresh }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{OutboxLimits, PeerIdentity};
    use crate::types::{ConnId, DeviceId, UserId};

    const PACE: Pace = Pace {
        heartbeat: Duration::from_secs(30),
        route_refresh: Duration::from_secs(40),
        message: Duration::from_secs(10),
        pulse: Duration::from_secs(10),
    };

    fn peer(expires_at: i64) -> Peer {
        let identity = PeerIdentity {
            conn: ConnId(1),
            user: UserId::new(1).unwrap(),
            device: DeviceId::new("d").unwrap(),
            expires_at,
        };
        let peer = Peer::new(identity, 5, OutboxLimits { bytes: 1, frames: 1 });
        peer.seen(100_000);
        peer.set_refreshed(100_000);
        peer
    }

    fn look(peer: &Peer, now_ms: u64) -> Look {
        look_at(peer, now_ms, 1_000, PACE)
    }

    #[test]
    fn silence_of_two_and_a_half_intervals_ends() {
        let peer = peer(PeerIdentity::NEVER);
        assert_eq!(look(&peer, 110_000), Look::Alive { next_ms: 120_000, refresh: false });
        assert!(matches!(look(&peer, 174_999), Look::Alive { next_ms: 175_000, .. }));
        assert_eq!(look(&peer, 175_000), Look::End(CloseReason::HeartbeatTimeout));
        peer.seen(174_000);
        assert!(matches!(look(&peer, 175_000), Look::Alive { refresh: true, .. }));
    }

    #[test]
    fn a_route_is_refreshed_by_heartbeats_only() {
        let peer = peer(PeerIdentity::NEVER);
        peer.seen(99_000);
        assert!(matches!(look(&peer, 140_000), Look::Alive { refresh: false, .. }));
        peer.seen(139_000);
        assert!(matches!(look(&peer, 140_000), Look::Alive { refresh: true, .. }));
    }

    #[test]
    fn each_deadline_has_its_reason() {
        assert_eq!(look(&peer(1_000), 100_001), Look::End(CloseReason::TokenExpired));
        assert!(matches!(look(&peer(1_002), 100_000), Look::Alive { next_ms: 102_000, .. }));
        let stalled = peer(PeerIdentity::NEVER);
        stalled.stall(100_000);
        stalled.seen(159_000);
        assert_eq!(look(&stalled, 160_000), Look::End(CloseReason::SlowConsumer));
        let partial = peer(PeerIdentity::NEVER);
        partial.set_partial(true, true, 100_000);
        assert_eq!(look(&partial, 110_000), Look::End(CloseReason::Protocol));
    }
}
