//! Whom of a room a message is offered to: its members with their connections,
//! looked up once for as long as nobody comes or goes.

use std::sync::Arc;

use super::peer::Peer;
use super::registry::{Devices, Hub};
use super::room::{Room, State};
use crate::types::UserId;

/// A member with a connection here.
#[derive(Debug)]
pub(crate) struct Seat {
    /// He sees what has a larger seq.
    pub since: i64,
    devices: Devices,
}

impl Seat {
    /// His connections; one may have ended meanwhile.
    #[must_use]
    pub(crate) fn peers(&self) -> &[Arc<Peer>] {
        self.devices.as_slice()
    }
}

/// The seats of a room, as they were at [`Hub::regroupings`].
#[derive(Debug)]
pub(super) struct Seating {
    regroupings: u64,
    seats: Arc<[Seat]>,
}

impl Room {
    /// The seats, unless who is in may be older than the state `mver` of the
    /// group: then somebody may be among them who is out.
    ///
    /// Whoever has not come in full by then is not among them: what was stored
    /// before is in the log that he reads.
    #[must_use]
    pub(crate) fn seats_at(&self, mver: u64, hub: &Hub) -> Option<Arc<[Seat]>> {
        // Before they are looked up: who comes meanwhile makes them outdated.
        let regroupings = hub.regroupings();
        let mut state = self.state.lock();
        if state.mver < mver && !state.members.is_empty() {
            return None;
        }
        if let Some(seating) = state.seating.as_ref().filter(|known| known.regroupings == regroupings) {
            return Some(Arc::clone(&seating.seats));
        }
        let seats = state.look_up(|user| hub.devices(user));
        state.seating = Some(Seating { regroupings, seats: Arc::clone(&seats) });
        Some(seats)
    }
}

impl State {
    fn look_up(&mut self, devices: impl Fn(UserId) -> Option<Devices>) -> Arc<[Seat]> {
        let mut seats = Vec::with_capacity(self.members.len());
        // Who is not here left while he was taken in: he comes back as a new one.
        self.members.retain(|user, entry| {
            let found = devices(*user);
            let is_here = found.is_some();
            seats.extend(found.map(|devices| Seat { since: entry.since, devices }));
            is_here
        });
        seats.into()
    }
}
