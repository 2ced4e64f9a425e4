//! Tasks the gateway cannot live without.
//!
//! Imported by whoever starts one: a lane, the bus, the wheel. Such a task
//! runs until the gateway stops; one that ends before, by a panic or by
//! running out of work, is a fault that would otherwise show only as silence,
//! so it stops the gateway.

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Runs `work` until `stop`. Should it end first, `stop` is pulled for all.
pub(crate) fn spawn_core(
    name: &'static str,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stop = stop.clone();
    tokio::spawn(async move {
        // A task of its own, so that a panic in it comes back as an error.
        let mut task = tokio::spawn(work);
        tokio::select! {
            // First: once all stop, a task may well run out of work.
            biased;
            () = stop.cancelled() => task.abort(),
            // Nobody aborts it but the runtime, at its own end.
            ended = &mut task => if !ended.as_ref().is_err_and(JoinError::is_cancelled) {
                error!(task = name, outcome = ?ended, "a task the gateway lives by has ended; stopping");
                stop.cancel();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_end_of_one_is_the_end_of_all() {
        for fails in [true, false] {
            let stop = CancellationToken::new();
            spawn_core("test", &stop, async move { assert!(!fails, "fails on purpose") });
            tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.expect("stops");
        }
    }
}
