//! The program: arguments in, exit code out.

mod allocator;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use listenfd::ListenFd;
use tidegate::cli::{Cli, Command, ServeArgs};
use tidegate::{Exit, Gateway, install_log, process_env, resolve};

/// Threads that read the embedded store: each keeps a stack and freed memory
/// of its own, and more than the disk serves at a time only wait.
const READERS: usize = 8;

/// A configuration that cannot be used (`EX_USAGE` of sysexits.h).
const BAD_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::Upgrade(args) => client(args.run()),
        Command::Drain(args) => client(args.run()),
        Command::Status(args) => client(args.run()),
        Command::Chat(args) => client(args.run()),
        Command::Send(args) => client(args.run()),
        Command::Group(args) => client(args.run()),
        Command::Token(args) => tidegate::cli::run_token(args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("tidegate: {error:#}");
        ExitCode::FAILURE
    })
}

fn serve(args: ServeArgs) -> Result<ExitCode> {
    let config = match resolve(&args.flags, process_env()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("tidegate: the configuration cannot be used:\n{errors}");
            return Ok(ExitCode::from(BAD_CONFIG));
        }
    };
    if args.check {
        println!("the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    install_log(&config.log_filter, config.log_json).map_err(anyhow::Error::msg)?;
    allocator::begin();
    raise_descriptor_limit();
    // Before there are threads: it changes the environment.
    let mut given = ListenFd::from_env();
    let given = [0, 1].into_iter().map_while(|n| given.take_tcp_listener(n).ok().flatten()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .max_blocking_threads(READERS)
        .enable_all()
        .on_thread_park(allocator::before_wait)
        .build()
        .context("runtime")?;
    // On a worker: what a thread that is none asks for, it never gives back.
    let running = runtime.spawn(async move {
        let gateway =
            if args.handover { Gateway::take_over(config).await? } else { Gateway::build_on(config, given)? };
        gateway.run().await
    });
    let exit = runtime.block_on(running).context("the gateway's task")?;
    match &exit {
        // What it held is another process's.
        Ok(Exit::HandedOver) => runtime.shutdown_background(),
        _ => runtime.shutdown_timeout(std::time::Duration::from_secs(1)),
    }
    Ok(match exit? {
        Exit::Stopped | Exit::HandedOver => ExitCode::SUCCESS,
        Exit::Superseded | Exit::Failed => ExitCode::FAILURE,
    })
}

fn client(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let outcome = runtime.block_on(command);
    // A read of the terminal may still be blocked.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// One descriptor per connection: as many as the system lets us have.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "descriptor limit not raised");
    }
}
