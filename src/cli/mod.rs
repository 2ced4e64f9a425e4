//! The command line: one subcommand per file, each with its flags and a
//! `run` that returns when it is done.
//!
//! What runs here talks to a gateway from outside, as any client or operator
//! would, and prints for people by default and for scripts where stdout or a
//! flag says so. Errors go to the caller, which prints them and exits with 1.

mod admin;
mod chat;
mod drain;
mod group;
mod identity;
mod send;
mod status;
mod token;
mod upgrade;

use clap::{Parser, Subcommand};

pub use admin::{Admin, AdminArgs, Problem};
pub use chat::ChatArgs;
pub use drain::DrainArgs;
pub use group::GroupArgs;
pub use identity::IdentityArgs;
pub use send::SendArgs;
pub use status::StatusArgs;
pub use token::{TokenArgs, run as run_token};
pub use upgrade::UpgradeArgs;

/// The program.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A WebSocket connection gateway with an embedded routing table",
    after_help = "Try it, in three terminals:\n  tidegate serve\n  tidegate chat --user 1 --to 2\n  tidegate chat --user 2 --to 1\n\n\
                  `tidegate help <command>` shows the flags and examples of a command."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a gateway
    Serve(ServeArgs),
    /// Replace the running program without closing a connection
    Upgrade(UpgradeArgs),
    /// Ask all clients to connect elsewhere, then end the gateway
    Drain(DrainArgs),
    /// Show what a running gateway says of itself
    Status(StatusArgs),
    /// Mint a development token
    Token(TokenArgs),
    /// Talk to another user, or to a group, in the terminal
    Chat(ChatArgs),
    /// Send one message and wait until it is stored
    Send(SendArgs),
    /// Make, change and list groups
    Group(GroupArgs),
}

/// Flags of `tidegate serve`. Each goes over its `TIDEGATE_…` variable, which
/// goes over the file, which goes over the default.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate serve\n  tidegate serve --listen 0.0.0.0:7700 --redis redis://127.0.0.1:6379 --config tidegate.toml\n  \
tidegate serve --config tidegate.toml --check\n\n\
A flag goes over its TIDEGATE_… variable, over the file, over the default."
)]
pub struct ServeArgs {
    /// What the configuration is made of.
    #[command(flatten)]
    pub flags: crate::config::Flags,
    /// Check the configuration and exit
    #[arg(long)]
    pub check: bool,
    /// Take over from the process that starts this one
    #[arg(long, hide = true)]
    pub handover: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_user_or_a_token_is_required() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("tidegate chat --user 1 --to 2").is_ok());
        assert!(parse("tidegate chat --token x --to 2").is_ok());
        assert!(parse("tidegate send --user 1 --to 2 hi").is_ok());
        assert!(parse("tidegate chat --user 1 --to g:team").is_ok());
        assert!(parse("tidegate chat --user 1 --group g:team").is_ok());
        assert!(parse("tidegate chat --user 1 --to p2p:1:2").is_err());
        assert!(parse("tidegate group create g:team 1 2 --owner 1 --history full").is_ok());
        assert!(parse("tidegate group add team 1").is_err());
        for bad in
            ["tidegate chat --to 2", "tidegate chat --user 0 --to 2", "tidegate chat --user 1", "tidegate"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
