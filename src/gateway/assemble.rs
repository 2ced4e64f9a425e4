//! From a gateway that is bound to one that is of its kind, and may serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Semaphore, mpsc};

use super::GatewayError;
use super::build::Gateway;
use super::membership::Membership;
use crate::bus::Receiver;
use crate::census::{Census, Geo, Terms};
use crate::config::{self, Config};
use crate::hub::Peer;
use crate::pipeline::{Backends, Pipeline, Ports, Tuning};
use crate::presence::Rules;
use crate::redis::Client;
use crate::session::{Context, Pace};
use crate::store::ledger::Ledger;
use crate::store::{Counting, RedisLedger};
use crate::telemetry::metrics;

/// New connections waiting for the wheel.
const ARRIVALS: usize = 4_096;
/// Until others know that somebody is back who came at the end of his grace.
const SAID_WITHIN: Duration = Duration::from_millis(1_500);

/// What a gateway has once it is one of its kind.
pub(super) struct Assembled {
    pub(super) context: Arc<Context>,
    pub(super) arrivals: mpsc::Receiver<Arc<Peer>>,
    pub(super) pace: Pace,
    pub(super) membership: Option<(Membership, u16)>,
    /// One per socket, and how many there are.
    pub(super) permits: Arc<Semaphore>,
    pub(super) most: usize,
}

impl Gateway {
    /// Waits for the lease and the subscription where there is Redis, and
    /// starts the pipeline.
    pub(super) async fn assemble(&self) -> Result<Assembled, GatewayError> {
        let inbox = Arc::clone(&self.admin.inbox);
        let receiver: Receiver = Arc::new(move |source, item| inbox.receive(source, item));
        let (ports, ledger, membership) = match &self.admin.redis {
            Some(client) => {
                let (ports, joined, node) = self.join(client, receiver).await?;
                (ports, Ledger::Redis(self.ledger(client)), Some((joined, node)))
            }
            None => {
                let (ports, store) = self.alone(receiver).await?;
                (ports, Ledger::Embedded(store), None)
            }
        };
        let ports = Arc::new(ports);
        let census = if self.config.presence.enabled {
            #[cfg(feature = "postgres")]
            self.copy_out(&ledger);
            let census = self.census(ledger).await?;
            let _ = self.admin.census.set(Arc::clone(&census));
            Some(census)
        } else {
            None
        };
        if self.node.is_some() {
            // The other process speaks until it has handed over.
            ports.pulse.hold();
        }
        let pipeline = Pipeline::start(Arc::clone(&ports), &self.stop);
        self.admin.inbox.open(&ports, &self.stop);
        let _ = self.admin.pipeline.set(Arc::clone(&pipeline));
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS);
        let context = Arc::new(Context {
            pipeline,
            census,
            authenticator: Arc::clone(&self.authenticator),
            limits: self.config.limits.clone(),
            origins: self.config.origins.clone(),
            heartbeat: self.config.heartbeat,
            gateway: self.data.own.id.clone(),
            arrivals: arrivals_in,
            stopping: self.stop.child_token(),
            freeze: Arc::default(),
            establishing: AtomicUsize::new(0),
            last_conn: AtomicU64::new(0),
        });
        let pace = Pace {
            heartbeat: self.config.heartbeat,
            route_refresh: self.config.route_refresh,
            message: self.config.limits.message,
            pulse: pulse(self.config.presence.window),
        };
        let membership = membership.map(|(joined, node)| (joined.into_membership(ports), node));
        let most = self.config.limits.max_connections.min(descriptors()).min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        Ok(Assembled { context, arrivals, pace, membership, permits, most })
    }

    fn ledger(&self, client: &Client) -> RedisLedger {
        let counting = if self.config.analytics.exact { Counting::Exact } else { Counting::Estimated };
        let keep_s = i64::try_from(self.config.analytics.history_age.as_secs()).unwrap_or(i64::MAX);
        RedisLedger::new(client.clone(), self.keys.clone(), counting, keep_s)
    }

    #[cfg(feature = "postgres")]
    fn copy_out(&self, ledger: &Ledger) {
        if let Some(config) = self.config.analytics.postgres.clone() {
            let zone = self.config.analytics.zone.clone();
            crate::sink::Postgres::new(config, ledger.clone(), zone).start(&self.stop);
        }
    }

    async fn census(&self, ledger: Ledger) -> Result<Arc<Census>, GatewayError> {
        let config = &self.config.analytics;
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let terms = Terms {
            zone: config.zone.clone(),
            log_age: ms(config.log_age),
            log_count: config.log_count,
            history_age: ms(config.history_age),
            every: ms(config.sample_every),
            window: self.config.presence.window,
            silence: ms(self.config.heartbeat.saturating_mul(3)),
        };
        let geo = match config.geo_database.clone() {
            None => None,
            Some(path) => {
                let opened = tokio::task::spawn_blocking(move || Geo::open(&path)).await;
                let failed = |why: String| GatewayError::Setup(format!("analytics.geo_database: {why}"));
                let opened = opened.map_err(|error| failed(error.to_string()))?;
                Some(opened.map_err(|error| failed(error.to_string()))?)
            }
        };
        Ok(Census::new(self.data.own.id.as_str(), ledger, terms, geo))
    }

    pub(super) fn ports(&self, backends: Backends, node: u16) -> Ports {
        metrics().ack_level.set(backends.store.level());
        let Config { limits, groups, presence, .. } = &self.config;
        let tuning = Tuning { send_wait: limits.send_wait, groups: *groups, presence: *presence };
        Ports::new(self.data.own.clone(), Arc::clone(&self.hub), backends, node, tuning)
    }
}

/// How often a connection is looked at for heartbeats.
fn pulse(window: Duration) -> Duration {
    (window / 12).clamp(Duration::from_millis(500), Duration::from_secs(10))
}

pub(super) fn rules(config: &Config) -> Rules {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let config::Presence { window, grace, .. } = config.presence;
    Rules {
        window_ms: ms(window),
        grace_ms: ms(grace + SAID_WITHIN),
        // Everybody is heard of once.
        hold_ms: ms(config.heartbeat + 2 * pulse(window)),
    }
}

/// Connections that leave the process the descriptors it needs itself, so
/// that the one too many gets 503, probes are still answered, and sockets can
/// be copied for another process.
fn descriptors() -> usize {
    const OWN: u64 = 64;
    const COPIES: u64 = 256;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    let kept = OWN + (soft / 16).min(COPIES);
    usize::try_from(soft.saturating_sub(kept).max(1)).unwrap_or(usize::MAX)
}
