//! How many are online at the moment, wherever they are.

use crate::hub::Hub;
use crate::store::StoreError;
use crate::store::ledger::Ledger;

/// Online is who has shown life within this, ms.
const WINDOW_MS: i64 = 180_000;

/// Of all gateways with Redis, else of this one.
pub(super) async fn online(ledger: &Ledger, hub: &Hub, now: i64) -> Result<u64, StoreError> {
    match ledger {
        Ledger::Redis(ledger) => ledger.online(now, WINDOW_MS).await,
        Ledger::Embedded(_) => Ok(u64::try_from(hub.users()).unwrap_or(u64::MAX)),
    }
}
