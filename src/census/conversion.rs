//! What follows from a change of `presence.dau`: days to which people can come
//! are counted anew, as is configured now.
//!
//! Promises: numbers are removed only once the log was counted in their
//! place. A day the log does not hold any more keeps both; it is closed with
//! whichever knows more.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{info, warn};

use super::Census;
use super::recalculate::RecalculateError;
use super::upkeep::CLOSED_AFTER;
use crate::analytics::Day;
use crate::presence::Presence;
use crate::store::StoreError;

/// Until it is looked for the second time; twice as long each time after that.
pub(super) const PAUSE: Duration = Duration::from_secs(60);
/// At most.
const LONGEST: Duration = Duration::from_secs(3_600);

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Conversion {
    /// Begun, and perhaps not whole.
    begun: BTreeSet<Day>,
    /// Those the log does not hold any more.
    gone: BTreeSet<Day>,
}

impl Census {
    /// Until there is nothing to do at a second look or a later one: another
    /// process may have counted in its way after the first.
    pub(super) async fn keep_converting(&self, presence: &Presence, mut pause: Duration) {
        let mut conversion = Conversion::default();
        let mut has_looked = false;
        loop {
            let converted = match self.headcount(presence).await {
                Ok(counted) => self.convert(&mut conversion, counted.as_of).await,
                Err(error) => Err(error),
            };
            match converted {
                Ok(true) if has_looked => break,
                Ok(_) => has_looked = true,
                Err(error) => warn!(%error, ?pause, "days counted otherwise are looked for again"),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST);
        }
        // Its end would be that of the gateway.
        std::future::pending().await
    }

    /// Counts anew what was counted otherwise; whether there was nothing.
    pub(super) async fn convert(&self, conversion: &mut Conversion, now: i64) -> Result<bool, StoreError> {
        let today = self.terms.zone.day(now);
        let open: Vec<Day> = (-1..CLOSED_AFTER).map(|ago| today.plus(-ago)).collect();
        let Conversion { begun, gone } = conversion;
        begun.extend(self.ledger.counted_otherwise(&open).await?);
        begun.retain(|day| !gone.contains(day));
        let is_settled = begun.is_empty();
        for day in begun.clone() {
            match self.recount(day, None, true).await {
                Ok(()) => info!(%day, "counted anew: presence.dau was changed"),
                // Counted by another, who knows in which way: looked at again.
                Err(RecalculateError::Stale(_)) => {}
                Err(RecalculateError::Store(error)) => return Err(error),
                Err(error @ (RecalculateError::Gone | RecalculateError::NotPast)) => {
                    warn!(%day, %error, "presence.dau was changed, and the day cannot be counted anew");
                    gone.insert(day);
                }
            }
            begun.remove(&day);
        }
        Ok(is_settled)
    }
}
