//! Gateways under traffic whose every message is checked.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tidegate_loadtest::check::{Fleet, Traffic};
use tidegate_loadtest::history::{History, Rules, Verdict, check};
use tokio::sync::watch;

use crate::common::{Gateway, Options, Redis, secs};

/// Sends in flight that a fault must meet.
pub(crate) const IN_FLIGHT: u64 = 100;
/// Acknowledged messages of a run that proves something.
pub(crate) const ENOUGH: u64 = 10_000;
/// Pairs of users in a run.
const PAIRS: u32 = 40;
/// How long everybody may take to have everything.
const SETTLE: Duration = secs(15);
/// How long anything may take that traffic waits for.
const PROGRESS: Duration = secs(40);

/// What a run with 10,000 messages and three faults must hold to.
pub(crate) fn strict() -> Rules {
    Rules {
        least_acked: usize::try_from(ENOUGH).unwrap(),
        least_injections: 3,
        least_in_flight: IN_FLIGHT,
        ..Rules::default()
    }
}

fn cluster(redis: &Redis, count: usize) -> Vec<Options> {
    (0..count).map(|index| Options::cluster(redis, &format!("gw-{index}"))).collect()
}

async fn start(options: Vec<Options>) -> Vec<Gateway> {
    futures_util::future::join_all(options.into_iter().map(Gateway::start)).await
}

/// Some gateways and the traffic over them.
pub(crate) struct Run {
    /// Those that run.
    pub(crate) gateways: Vec<Gateway>,
    /// The traffic.
    pub(crate) fleet: Fleet,
    addresses: watch::Sender<Vec<SocketAddr>>,
}

impl Run {
    /// `count` gateways on one Redis, and traffic between all of them, in
    /// pairs and groups.
    pub(crate) async fn on(redis: &Redis, count: usize) -> Self {
        Self::with(cluster(redis, count)).await
    }

    /// The same in pairs alone: a group is gone with an empty Redis.
    pub(crate) async fn of_pairs(redis: &Redis, count: usize) -> Self {
        let gateways = start(cluster(redis, count)).await;
        Self::under(gateways, Traffic::pairs(PAIRS, 1)).await
    }

    /// These gateways.
    pub(crate) async fn with(options: Vec<Options>) -> Self {
        let gateways = start(options).await;
        let mut traffic = Traffic::pairs(PAIRS, 1);
        for (group, first) in ["g:red", "g:green", "g:blue"].into_iter().zip((1..).step_by(10)) {
            let members: Vec<i64> = (first..first + 8).collect();
            let group_of = json!({ "id": group, "members": members });
            gateways[0].http().post("/v1/conversations", &group_of).await.success();
            traffic = traffic.group(group, members);
        }
        Self::under(gateways, traffic).await
    }

    async fn under(gateways: Vec<Gateway>, traffic: Traffic) -> Self {
        let addresses = watch::Sender::new(gateways.iter().map(|gateway| gateway.listen).collect());
        let fleet = Fleet::start(addresses.subscribe(), traffic);
        let run = Self { gateways, fleet, addresses };
        assert!(run.fleet.all_served(PROGRESS).await, "not every client is served");
        run
    }

    /// Traffic goes on until this many more messages are acknowledged.
    pub(crate) async fn flow(&self, messages: u64) {
        let before = self.fleet.acked();
        if !self.fleet.more_acked(messages, PROGRESS).await {
            let acked = self.fleet.acked() - before;
            panic!("{acked} of {messages} messages acknowledged within {PROGRESS:?}");
        }
    }

    /// Traffic goes on until the run has checked enough.
    pub(crate) async fn flow_until_enough(&self) {
        self.flow(ENOUGH.saturating_sub(self.fleet.acked())).await;
    }

    /// Takes a gateway out, killed, while sends are in flight.
    pub(crate) async fn kill_gateway(&mut self) -> Gateway {
        let mut gateway = self.gateways.remove(0);
        self.fleet.strike("kill a gateway", IN_FLIGHT, || gateway.kill()).await;
        self.announce();
        gateway
    }

    /// Brings one back.
    pub(crate) fn add(&mut self, gateway: Gateway) {
        self.gateways.push(gateway);
        self.announce();
    }

    /// What everybody saw.
    pub(crate) async fn history(self) -> History {
        let Self { gateways, fleet, addresses } = self;
        let history = fleet.finish(SETTLE).await.unwrap();
        drop((gateways, addresses));
        history
    }

    /// Ends the traffic; the verdict is printed, and may be anything.
    pub(crate) async fn verdict(self, rules: &Rules) -> Verdict {
        let verdict = check(&self.history().await, rules);
        println!("{verdict}");
        verdict
    }

    /// Ends the traffic; the verdict is printed, and must be good.
    pub(crate) async fn judge(self, rules: &Rules) -> Verdict {
        let verdict = self.verdict(rules).await;
        assert!(verdict.is_kept(), "{verdict}");
        verdict
    }

    fn announce(&self) {
        self.addresses.send_replace(self.gateways.iter().map(|gateway| gateway.listen).collect());
    }
}
