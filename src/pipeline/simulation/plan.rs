//! What one seed means: how large the world is, and what goes wrong in it.

use std::time::Duration;

use crate::bus::faulty::Faults;
use crate::config::Groups;
use crate::hub::OutboxLimits;
use crate::store::flaky::Weather;

/// Drawn once, from the seed.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub gateways: usize,
    pub users: i64,
    /// How long things go on and wrong.
    pub runs: Duration,
    /// Nothing goes wrong at all.
    pub calm: bool,
    pub bus: Faults,
    pub store: Weather,
    /// The store is away now and then.
    pub outages: bool,
    pub limits: OutboxLimits,
    pub groups: Groups,
    /// Members come and go.
    pub members_change: bool,
    /// Histories are lost.
    pub damage: bool,
    /// Clients read slowly, or not at all for a while.
    pub slow: bool,
    /// Clients disconnect and come back elsewhere.
    pub hops: bool,
}

fn chance(of: f64) -> bool {
    fastrand::f64() < of
}

fn up_to(most: f64) -> f64 {
    fastrand::f64() * most
}

impl Plan {
    /// From the thread's `fastrand`, which was seeded.
    pub(super) fn draw() -> Self {
        let (gateways, users) = (fastrand::usize(2..=3), fastrand::i64(3..=5));
        let runs = Duration::from_millis(fastrand::u64(3_000..12_000));
        if chance(0.1) {
            return Self::calm(gateways, users, runs);
        }
        let mut bus = Faults { delay_ms: fastrand::u64(0..120), ..Faults::default() };
        if chance(0.5) {
            bus.lost = up_to(0.3);
        }
        if chance(0.5) {
            bus.repeated = up_to(0.4);
        }
        if chance(0.5) {
            bus.reordered = up_to(1.0);
        }
        let mut store = Weather { delay_ms: fastrand::u64(0..30), ..Weather::default() };
        if chance(0.5) {
            store.append_fails = up_to(0.15);
        }
        if chance(0.5) {
            store.read_fails = up_to(0.2);
        }
        let slow = chance(0.4);
        let limits = if slow {
            OutboxLimits { bytes: fastrand::u32(1_500..8_000), frames: fastrand::u32(4..20) }
        } else {
            OutboxLimits { bytes: 1 << 20, frames: 4_000 }
        };
        let hot = chance(0.4);
        let groups = Groups {
            push_members: if hot && chance(0.5) { 1 } else { 100 },
            push_rate: if hot { fastrand::u32(1..8) } else { 1_000 },
            pull_spread: Duration::from_millis(fastrand::u64(0..300)),
            receipt_members: 100,
        };
        let members_change = chance(0.5);
        let damage = !members_change && chance(0.4);
        let (outages, hops) = (chance(0.4), chance(0.6));
        Self {
            gateways,
            users,
            runs,
            calm: false,
            bus,
            store,
            outages,
            limits,
            groups,
            members_change,
            damage,
            slow,
            hops,
        }
    }

    fn calm(gateways: usize, users: i64, runs: Duration) -> Self {
        Self {
            gateways,
            users,
            runs,
            calm: true,
            bus: Faults { delay_ms: 5, ..Faults::default() },
            store: Weather { delay_ms: 5, ..Weather::default() },
            outages: false,
            limits: OutboxLimits { bytes: 1 << 20, frames: 4_000 },
            groups: Groups {
                push_members: 100,
                push_rate: 1_000,
                pull_spread: Duration::ZERO,
                receipt_members: 100,
            },
            members_change: false,
            damage: false,
            slow: false,
            hops: false,
        }
    }
}
