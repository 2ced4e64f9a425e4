//! What is known of a connection, taken out whole and put back in elsewhere.

use std::sync::atomic::Ordering;

use super::outbox::{Class, Ending, Frame, Outbox, OutboxLimits, State};
use super::peer::{Peer, PeerIdentity};
use crate::message::{CarriedPlaces, Places};
use crate::telemetry::metrics;

/// An outbox as it stands.
#[derive(Debug, Default)]
pub(crate) struct CarriedOutbox {
    /// What is to be written, the first frame whole even where a part of it
    /// has left.
    pub queue: Vec<Frame>,
    /// Bytes of the first frame that have left already.
    pub offset: u32,
    /// How far the connection is in its conversations.
    pub places: CarriedPlaces,
    /// How it was asked to end.
    pub ending: Option<Ending>,
}

/// The times of a connection, monotonic ms; 0 = never, or not now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CarriedTimes {
    /// Its beginning.
    pub since: u64,
    /// The last inbound frame.
    pub last_seen: u64,
    /// The last route refresh.
    pub refreshed: u64,
    /// Since when nothing could be written.
    pub stalled: u64,
    /// Since when an inbound message is unfinished.
    pub partial: u64,
    /// Until when sends are turned away.
    pub shedding: u64,
}

impl CarriedTimes {
    /// The same after a pause in which nothing could happen.
    #[must_use]
    pub(crate) fn forgiven(mut self, pause_ms: u64) -> Self {
        for time in [&mut self.last_seen, &mut self.stalled, &mut self.partial] {
            if *time > 0 {
                *time += pause_ms;
            }
        }
        self
    }
}

impl Outbox {
    /// As it stands; it stays as it is.
    pub(crate) fn carry(&self) -> CarriedOutbox {
        let state = self.state.lock();
        CarriedOutbox {
            queue: state.queue.iter().cloned().collect(),
            offset: state.offset,
            places: state.places.carry(),
            ending: state.ending,
        }
    }

    /// Goes on with one that stood elsewhere.
    fn resume(carried: CarriedOutbox) -> Self {
        let mut state = State {
            ending: carried.ending,
            offset: carried.offset,
            places: Places::resume(carried.places),
            ..State::default()
        };
        for frame in carried.queue {
            if frame.class == Class::Push {
                metrics().copies_queued.increment(1.0);
            }
            state.enqueue(frame);
        }
        Self { state: parking_lot::Mutex::new(state) }
    }
}

impl Peer {
    /// Its times.
    #[must_use]
    pub(crate) fn times(&self) -> CarriedTimes {
        CarriedTimes {
            since: self.since,
            last_seen: self.last_seen.load(Ordering::Relaxed),
            refreshed: self.refreshed.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
            partial: self.partial.load(Ordering::Relaxed),
            shedding: self.shedding.load(Ordering::Relaxed),
        }
    }

    /// Goes on with a connection that stood elsewhere.
    #[must_use]
    pub(crate) fn resume(
        identity: PeerIdentity,
        bound: u64,
        limits: OutboxLimits,
        times: CarriedTimes,
        outbox: CarriedOutbox,
    ) -> Self {
        let mut peer = Self::new(identity, bound, limits);
        peer.since = times.since;
        peer.outbox = Outbox::resume(outbox);
        peer.set_times(times);
        peer
    }

    /// Forgives a pause in which it could neither be heard nor written to.
    pub(crate) fn forgive(&self, pause_ms: u64) {
        self.set_times(self.times().forgiven(pause_ms));
    }

    fn set_times(&self, times: CarriedTimes) {
        self.last_seen.store(times.last_seen, Ordering::Relaxed);
        self.refreshed.store(times.refreshed, Ordering::Relaxed);
        self.stalled.store(times.stalled, Ordering::Relaxed);
        self.partial.store(times.partial, Ordering::Relaxed);
        self.shedding.store(times.shedding, Ordering::Relaxed);
    }
}
