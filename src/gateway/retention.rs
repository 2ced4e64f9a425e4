//! Messages past their time are removed, a little at a time.
//!
//! A round goes once through what the store keeps, in steps with a pause
//! between them, so that it costs sends nothing they would notice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use crate::config;
use crate::pipeline::Ports;
use crate::store::{Keep, Retention};
use crate::telemetry::metrics;
use crate::types::unix_ms;

/// Between the starts of two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// Before the first one.
const FIRST: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(2);
/// Failures of one step before the round is given up.
const TRIES: u32 = 5;

impl From<&config::Retention> for Retention {
    fn from(retention: &config::Retention) -> Self {
        let keep = |keep: config::Keep| Keep {
            age_ms: keep.age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            count: keep.count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
        };
        Self { p2p: keep(retention.p2p), group: keep(retention.group) }
    }
}

/// Starts a round about once a minute, for ever.
pub(super) async fn keep(ports: Arc<Ports>, retention: Retention) {
    sleep(jittered(FIRST)).await;
    loop {
        round(&ports, &retention).await;
        sleep(jittered(ROUND)).await;
    }
}

async fn round(ports: &Ports, retention: &Retention) {
    let mut cursor = String::new();
    let mut removed = 0;
    let mut failures = 0;
    loop {
        match ports.store.trim(unix_ms(), retention, &cursor).await {
            Ok(trimmed) => {
                failures = 0;
                removed += trimmed.messages;
                metrics().retention_messages.increment(trimmed.messages);
                metrics().retention_conversations.increment(trimmed.conversations);
                cursor = trimmed.cursor;
                if cursor.is_empty() {
                    break;
                }
                sleep(STEP).await;
            }
            Err(error) => {
                failures += 1;
                warn!(%error, failures, "messages past their time could not be removed");
                if failures == TRIES {
                    return;
                }
                sleep(jittered(RETRY)).await;
            }
        }
    }
    metrics().retention_rounds.increment(1);
    if removed > 0 {
        debug!(removed, "messages past their time removed");
    }
}

/// A quarter more or less, so that gateways do not go in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_taken_over() {
        let configured = config::Retention {
            p2p: config::Keep { age: Some(Duration::from_secs(3)), count: None },
            group: config::Keep { age: None, count: Some(7) },
        };
        let expected = Retention {
            p2p: Keep { age_ms: Some(3_000), count: None },
            group: Keep { age_ms: None, count: Some(7) },
        };
        assert_eq!(Retention::from(&configured), expected);
    }
}
