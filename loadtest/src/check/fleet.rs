//! Many clients, from the first connection to the history of the run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::audit;
use super::client::{Client, Role};
use super::shared::{Phase, Shared};
use crate::history::{ClientLog, History, Injection, Stay};

/// How long clients may take to leave.
const LEAVE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Who talks to whom, and how much.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Conversations and their members.
    pub conversations: Vec<(Arc<str>, Vec<i64>)>,
    /// Precedes each clientMsgId; differs from run to run.
    pub prefix: String,
    /// How often every client sends; all do at the same moments.
    pub tick: Duration,
    /// How many at once.
    pub burst: usize,
    /// Most unanswered messages of a client.
    pub window: usize,
}

impl Traffic {
    /// `pairs` pairs of users from `first_user` on.
    #[must_use]
    pub fn pairs(pairs: u32, first_user: i64) -> Self {
        let pair = |index: u32| {
            let user = first_user + 2 * i64::from(index);
            (Arc::from(format!("p2p:{user}:{}", user + 1)), vec![user, user + 1])
        };
        Self {
            conversations: (0..pairs).map(pair).collect(),
            prefix: format!("check-{:08x}-", fastrand::u32(..)),
            tick: Duration::from_millis(200),
            burst: 3,
            window: 6,
        }
    }

    /// Adds a group, which must have these members and no message.
    #[must_use]
    pub fn group(mut self, id: &str, members: Vec<i64>) -> Self {
        self.conversations.push((Arc::from(id), members));
        self
    }

    fn roles(&self) -> (Vec<Role>, Vec<Vec<Arc<AtomicI64>>>) {
        let mut roles: BTreeMap<i64, Role> = BTreeMap::new();
        let mut floors = Vec::new();
        for (conversation, members) in &self.conversations {
            let mut level = Vec::new();
            for user in members {
                let turn = roles.len();
                let role = roles.entry(*user).or_insert_with(|| Role {
                    user: *user,
                    turn,
                    conversations: Vec::new(),
                    prefix: self.prefix.clone(),
                    tick: self.tick,
                    burst: self.burst,
                    window: self.window,
                });
                let floor = Arc::new(AtomicI64::new(0));
                role.conversations.push((Arc::clone(conversation), Arc::clone(&floor)));
                level.push(floor);
            }
            floors.push(level);
        }
        (roles.into_values().collect(), floors)
    }
}

/// A run.
#[derive(Debug)]
pub struct Fleet {
    traffic: Traffic,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    clients: JoinSet<ClientLog>,
    injections: Vec<Injection>,
}

impl Fleet {
    /// Starts every client; they go to whatever `gateways` names.
    #[must_use]
    pub fn start(gateways: watch::Receiver<Vec<SocketAddr>>, traffic: Traffic) -> Self {
        let (phase, phases) = watch::channel(Phase::Sending);
        let (roles, floors) = traffic.roles();
        let shared = Arc::new(Shared::new(gateways, phases, floors));
        let mut clients = JoinSet::new();
        for role in roles {
            clients.spawn(Client::new(role, Arc::clone(&shared)).run());
        }
        Self { traffic, shared, phase, clients, injections: Vec::new() }
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until `count` more messages than now are acknowledged; whether
    /// it came to that within `limit`.
    pub async fn more_acked(&self, count: u64, limit: Duration) -> bool {
        let wanted = self.acked() + count;
        self.becomes(limit, || self.acked() >= wanted).await
    }

    /// Waits until every client is served; whether it came to that.
    pub async fn all_served(&self, limit: Duration) -> bool {
        let all = u64::try_from(self.clients.len()).unwrap_or(u64::MAX);
        self.becomes(limit, || self.shared.served.load(Ordering::Relaxed) >= all).await
    }

    /// Does something to the servers when at least `in_flight` sends wait for
    /// an answer, or after 5 s all the same.
    pub async fn strike<T>(&mut self, what: &str, in_flight: u64, strike: impl FnOnce() -> T) -> T {
        let flying = || self.shared.in_flight.load(Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(5);
        while flying() < in_flight && Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
        }
        let injection =
            Injection { at: self.shared.start.elapsed(), what: what.to_owned(), in_flight: flying() };
        self.injections.push(injection);
        strike()
    }

    /// Every client leaves its gateway, without a word, and goes to the next.
    pub fn shake(&self) {
        self.shared.shakes.fetch_add(1, Ordering::Relaxed);
    }

    /// No new messages; waits up to `settle` until all are answered and all
    /// members have equally many, then reads the logs.
    pub async fn finish(mut self, settle: Duration) -> Result<History> {
        let _ = self.phase.send(Phase::Draining);
        self.becomes(settle, || self.shared.is_settled()).await;
        let _ = self.phase.send(Phase::Over);
        let mut history = History { injections: self.injections, ..History::default() };
        let end = Instant::now() + LEAVE;
        while let Some(log) =
            tokio::time::timeout_at(end, self.clients.join_next()).await.context("a client does not leave")?
        {
            history.clients.push(log.context("a client")?);
        }
        let gateways = self.shared.gateways.borrow().clone();
        for (conversation, members) in &self.traffic.conversations {
            let Some(reader) = members.first() else { bail!("{conversation} has no member") };
            let log = audit::read(&gateways, *reader, conversation).await?;
            history.logs.insert(Arc::clone(conversation), log);
            let stay = |user: &i64| Stay { user: *user, since_seq: 0, until_seq: None };
            history.members.insert(Arc::clone(conversation), members.iter().map(stay).collect());
        }
        history.clients.sort_by_key(|client| client.user);
        Ok(history)
    }

    async fn becomes(&self, limit: Duration, condition: impl Fn() -> bool) -> bool {
        let end = Instant::now() + limit;
        while !condition() {
            if Instant::now() >= end {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }
}
