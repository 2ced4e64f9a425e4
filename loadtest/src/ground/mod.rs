//! What a run takes place against: gateways that run already, or some of the
//! run's own, and the floor.

mod gateway;
mod redis;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

pub(crate) use self::gateway::{Linked, OwnGateway};
pub(crate) use self::redis::OwnRedis;
use crate::admin::Admin;
use crate::floor::Floor;
use crate::process::Processes;
use crate::target::Targets;

/// Where the gateways are, or how they are started.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroundArgs {
    /// WebSocket address of a gateway that runs already; given twice,
    /// connections take turns, and the two sides of a pair are on different
    /// gateways. Without it the run starts its own.
    #[arg(long, global = true)]
    pub(crate) url: Vec<String>,
    /// Admin address of a gateway of --url, on this machine, whose cost is
    /// reported; given twice, the sum. Default: 127.0.0.1:7701.
    #[arg(long, global = true)]
    pub(crate) admin: Vec<String>,
    /// Program of the run's own gateways. Default: the gateway this tool was
    /// built with, which has neither the program's allocator nor its care for
    /// memory: name the program where cost is measured.
    #[arg(long, global = true, conflicts_with = "url")]
    pub(crate) gateway: Option<PathBuf>,
    /// How many gateways of its own; more than one needs --redis.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16), conflicts_with = "url")]
    pub(crate) gateways: u32,
    /// The run starts its own redis-server for its gateways.
    #[arg(long, global = true, conflicts_with = "url")]
    pub(crate) redis: bool,
    /// Configuration file of its own gateways.
    #[arg(long, global = true, conflicts_with = "url")]
    pub(crate) config: Option<PathBuf>,
    /// Where its own gateways keep their data, e.g. on the disk to be
    /// measured. Default: the system's temporary directory.
    #[arg(long, global = true, conflicts_with = "url")]
    pub(crate) data: Option<PathBuf>,
    /// Worker threads of its own gateways and of the floor. Default: the number of
    /// cores.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,
    /// What a scenario wants of the run's own gateways, as variables.
    #[arg(skip)]
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl GroundArgs {
    /// Threads of a server.
    pub(crate) fn workers(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.unwrap_or(u32::try_from(cores).unwrap_or(1))
    }
}

/// One kind of server the same load is put on.
#[derive(Debug)]
pub(crate) struct Side {
    /// `gateway` or `floor`.
    pub(crate) name: &'static str,
    /// What it is, in words.
    pub(crate) what: String,
    pub(crate) targets: Targets,
    pub(crate) processes: Processes,
    /// None of the floor.
    pub(crate) admins: Vec<Admin>,
    /// Signs tokens, where the gateways ask for them.
    pub(crate) secret: Option<String>,
    /// The run's own; the first is what may be disturbed.
    pub(crate) own: Vec<OwnGateway>,
    pub(crate) redis: Option<OwnRedis>,
    floor: Option<Floor>,
}

impl Side {
    /// The gateways of `args`; with `secret`, its own ask for tokens.
    pub(crate) fn gateway(args: &GroundArgs, secret: Option<String>) -> Result<Self> {
        if args.url.is_empty() { Self::start(args, secret) } else { Self::attach(args) }
    }

    fn attach(args: &GroundArgs) -> Result<Self> {
        let default = ["127.0.0.1:7701".to_owned()];
        let admins = if args.admin.is_empty() { &default[..] } else { &args.admin };
        let admins: Vec<Admin> = admins.iter().cloned().map(Admin).collect();
        let mut pids = Vec::new();
        let mut what = Vec::new();
        for admin in &admins {
            let status = admin.status().with_context(|| format!("status of {}", admin.0))?;
            let pid = status.get("pid").and_then(Value::as_u64).context("status without pid")?;
            pids.push(u32::try_from(pid)?);
            let build = status.get("build").and_then(Value::as_str).unwrap_or_default();
            what.push(format!("{} (pid {pid}, build {build})", admin.0));
        }
        Ok(Self {
            name: "gateway",
            what: what.join(", "),
            targets: Targets::resolve(&args.url)?,
            processes: Processes::new(pids),
            admins,
            secret: None,
            own: Vec::new(),
            redis: None,
            floor: None,
        })
    }

    fn start(args: &GroundArgs, secret: Option<String>) -> Result<Self> {
        if args.gateways > 1 && !args.redis {
            bail!("--gateways {} needs --redis", args.gateways);
        }
        let redis = if args.redis { Some(OwnRedis::start()?) } else { None };
        let url = redis.as_ref().map(OwnRedis::url);
        let own = (0..args.gateways)
            .map(|number| OwnGateway::start(args, number, url.as_deref(), secret.as_deref()))
            .collect::<Result<Vec<_>>>()?;
        let store = if args.redis { "its own Redis" } else { "the embedded store" };
        let program = args.gateway.as_ref().map_or("linked".into(), |path| path.display().to_string());
        Ok(Self {
            name: "gateway",
            what: format!("{} of the run ({program}), {} workers, on {store}", own.len(), args.workers()),
            targets: targets(&own),
            processes: processes(&own),
            admins: admins(&own),
            secret,
            own,
            redis,
            floor: None,
        })
    }

    /// A floor with as many threads.
    pub(crate) fn floor(args: &GroundArgs) -> Result<Self> {
        let floor = Floor::start(args.workers())?;
        Ok(Self {
            name: "floor",
            what: format!("bare epoll server, {} workers", args.workers()),
            targets: Targets::at(&[floor.address]),
            processes: Processes::new(vec![floor.pid()]),
            admins: Vec::new(),
            secret: None,
            own: Vec::new(),
            redis: None,
            floor: Some(floor),
        })
    }

    /// Ends the run's own gateways and starts others on the same data, so that
    /// what came before leaves no trace in their memory; whether it could.
    pub(crate) fn restart(&mut self) -> Result<bool> {
        for gateway in &mut self.own {
            gateway.restart()?;
        }
        if !self.own.is_empty() {
            self.targets = targets(&self.own);
            (self.processes, self.admins) = (processes(&self.own), admins(&self.own));
        }
        Ok(!self.own.is_empty())
    }

    /// `pid` goes on with what the first gateway was.
    pub(crate) fn handed_over(&mut self, pid: u32) {
        if let Some(gateway) = self.own.first_mut() {
            gateway.handed_over(pid);
        }
    }

    /// Whether this is the floor.
    pub(crate) const fn is_floor(&self) -> bool {
        self.floor.is_some()
    }

    /// The admin interface of its first gateway.
    pub(crate) fn admin(&self) -> Result<&Admin> {
        self.admins.first().context("no admin address")
    }
}

fn targets(own: &[OwnGateway]) -> Targets {
    Targets::at(&own.iter().map(|gateway| gateway.listen).collect::<Vec<_>>())
}

fn processes(own: &[OwnGateway]) -> Processes {
    Processes::new(own.iter().map(OwnGateway::pid).collect())
}

fn admins(own: &[OwnGateway]) -> Vec<Admin> {
    own.iter().map(|gateway| Admin(gateway.admin.to_string())).collect()
}
