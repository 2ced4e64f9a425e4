//! Reads of the store that have to be done, however long it is away.

use std::time::Duration;

use tokio::time::sleep;

use crate::store::StoreError;

/// Pause after one without an answer, on average.
const PAUSE: Duration = Duration::from_millis(400);

/// Tries until the store answers; `None` = it answers nonsense, which is
/// logged, and no other attempt would help.
pub(super) async fn insistently<T, F>(mut attempt: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match attempt().await {
            Ok(answer) => return Some(answer),
            Err(StoreError::Unavailable) => sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await,
            Err(StoreError::Broken(why)) => {
                tracing::error!(why, "the store answers nonsense");
                return None;
            }
        }
    }
}
