//! What is done to a server, and what is measured of it.
//!
//! A [`Scenario`] runs in rounds. Each round opens its own connections to one
//! [`Side`], measures, and lets them go, so that the floor and the gateway can
//! take turns within one run and one process may not have enough descriptors
//! for both.

mod beside;
mod connect;
mod followers;
mod group;
mod heartbeat;
mod idle;
mod p2p;
mod pairs;
mod pulls;
mod restart;
mod slow;
mod soak;
mod wave;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use self::connect::Connect;
pub(crate) use self::group::Group;
pub(crate) use self::heartbeat::Heartbeat;
pub(crate) use self::idle::Idle;
pub(crate) use self::p2p::P2p;
pub(crate) use self::restart::HotRestart;
pub(crate) use self::slow::SlowReaders;
pub(crate) use self::soak::Soak;
pub(crate) use self::wave::ReconnectWave;
use crate::ground::Side;
use crate::progress::{OPENED, Progress};
use crate::round::Round;
use crate::swarm::{Opened, Opening, Swarm, Told};
use crate::token::Minter;
use crate::witness::Witness;

/// Things come to rest after opening, before anything is measured.
const REST: Duration = Duration::from_secs(1);

/// Something simpler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Comparison {
    /// A bare epoll server that writes prebuilt frames.
    Floor,
    /// The same gateway with one worker thread.
    OneWorker,
    /// The same gateway, which keeps no presence.
    WithoutPresence,
    /// p2p: what the store is made of, without a gateway: the append script
    /// called by a bare client, or appending to a file and syncing it.
    Bare,
}

/// How a scenario is put beside something simpler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Rounds of both, in turn.
    InTurn,
    /// Within each round.
    Within,
    /// It makes no sense.
    Never,
}

impl Compared {
    /// For what a server without a store can do as well.
    const fn unless_bare(with: Comparison) -> Self {
        match with {
            Comparison::Floor | Comparison::OneWorker | Comparison::WithoutPresence => Self::InTurn,
            Comparison::Bare => Self::Never,
        }
    }
}

/// One kind of load.
pub(crate) trait Scenario {
    /// As it is called on the command line.
    fn name(&self) -> &'static str;
    /// What it was told to do, by name.
    fn settings(&self) -> Vec<(&'static str, String)>;
    /// How it is put beside something simpler.
    fn compared(&self, with: Comparison) -> Compared;
    /// Whether each round needs a gateway that did nothing yet.
    fn wants_fresh(&self) -> bool {
        false
    }
    /// Whether its clients show tokens, where the run starts the gateways.
    fn wants_tokens(&self) -> bool {
        false
    }
    /// What it wants of the run's own gateways, as variables.
    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
    /// One round.
    fn round(&self, stage: &mut Stage<'_>) -> Result<Round>;
}

/// What a round works with.
pub(crate) struct Stage<'a> {
    pub(crate) side: &'a mut Side,
    pub(crate) progress: &'a mut Progress,
    /// User of the first connection; the others count on from it.
    pub(crate) first_user: u64,
    /// Connections being opened at once.
    pub(crate) opening: u32,
    /// Of this round; differs from run to run.
    pub(crate) nonce: String,
    /// What the gateway is put beside in this run.
    pub(crate) compared: Option<Comparison>,
    /// Clients whose every message goes through the history checker.
    pub(crate) watched: u32,
}

impl Stage<'_> {
    /// The user of client `index`.
    pub(crate) fn user(&self, index: u32) -> u64 {
        self.first_user + u64::from(index)
    }

    /// Upgrade requests by client.
    pub(crate) fn requests(&self) -> impl FnMut(u32) -> Result<Vec<u8>> + use<> {
        let targets = self.side.targets.clone();
        let minter = self.side.secret.as_deref().map(Minter::new);
        let first_user = self.first_user;
        move |index| {
            let user = first_user + u64::from(index);
            let token = minter.as_ref().map(|minter| minter.mint(user)).transpose()?;
            Ok(targets.request(index, user, token.as_deref(), false)?.into_bytes())
        }
    }

    /// Opens clients 0 to `count`, all of them, or fails.
    pub(crate) fn open(&mut self, swarm: &mut Swarm, count: u32) -> Result<Opened> {
        self.begin(OPENED);
        self.open_more(swarm, 0..count)
    }

    /// Opens these clients, all of them, or fails.
    pub(crate) fn open_more(&self, swarm: &mut Swarm, clients: Range<u32>) -> Result<Opened> {
        let opening = Opening::new(clients.collect(), self.opening, None);
        opening.run(swarm, &self.side.targets, self.requests())?.complete()
    }

    /// Begins a stretch of counting.
    pub(crate) fn begin(&mut self, what: &'static str) {
        self.progress.begin(self.side.name, &self.side.processes, what);
    }

    /// Reads the conversations and judges what was seen of them.
    pub(crate) fn judge(&self, witness: Witness, round: &mut Round) {
        if self.side.processes.sample().is_partial {
            return round.problem("a server's process is gone");
        }
        match witness.judge(self.side) {
            Ok(verdict) => round.verdict = Some(verdict),
            Err(error) => round.problem(format!("the history cannot be read: {error:#}")),
        }
    }

    /// Lets `span` pass; returns the clients lost meanwhile.
    pub(crate) fn pass(&mut self, swarm: &mut Swarm, span: Duration) -> Result<Vec<String>> {
        let end = Instant::now() + span;
        let mut lost = Vec::new();
        while Instant::now() < end {
            swarm.turn(end.min(Instant::now() + REST), |_, _, told| {
                if let Told::Gone(why) = told {
                    lost.push(format!("{why:#}"));
                }
            })?;
            self.progress.tick(Instant::now());
        }
        Ok(lost)
    }
}

/// As a problem: how many were lost, and why the first was.
pub(crate) fn lost(round: &mut Round, when: &str, lost: &[String]) {
    if let Some(first) = lost.first() {
        round.problem(format!("{} connections lost {when}: {first}", lost.len()));
    }
}
