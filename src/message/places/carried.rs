//! Places on their way to another process. Pure.

use super::{Places, Pulling};
use crate::message::Place;

/// The places of one connection, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CarriedPlaces {
    /// How far it is.
    pub places: Vec<Place>,
    /// There are no other conversations.
    pub complete: bool,
    /// What the client was told to pull.
    pub pulling: Vec<Pulling>,
    /// What else it has.
    pub holdings: Vec<Place>,
}

impl Places {
    /// All of it, for another process.
    pub(crate) fn carry(&self) -> CarriedPlaces {
        CarriedPlaces {
            places: self.list.iter().collect(),
            complete: self.list.is_complete(),
            pulling: self.pulling.as_deref().cloned().unwrap_or_default(),
            holdings: self.holdings.all(),
        }
    }

    /// Goes on where another process was.
    pub(crate) fn resume(carried: CarriedPlaces) -> Self {
        let CarriedPlaces { places, complete, pulling, holdings } = carried;
        let mut resumed = Self::default();
        resumed.open(places, complete);
        resumed.pulling = (!pulling.is_empty()).then(|| Box::new(pulling));
        holdings.into_iter().for_each(|held| resumed.holdings.add(held));
        resumed
    }
}
