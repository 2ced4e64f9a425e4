//! How many are online at the moment, wherever they are.

use std::time::Duration;

use crate::presence::Presence;
use crate::store::StoreError;

/// Of all gateways, within `window` before `now`, unix ms.
pub(super) async fn online(presence: &Presence, window: Duration, now: i64) -> Result<u64, StoreError> {
    presence.online_count(window, now).await.map_err(|_| StoreError::Unavailable)
}
