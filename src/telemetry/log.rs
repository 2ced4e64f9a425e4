//! The log: to standard error, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The storage engine's own words, which the store says in its own; a filter
/// that names it has them back.
const QUIET: &str = "fjall=off,lsm_tree=off";

/// Installs the subscriber; `filter` is in `tracing` syntax. A second call
/// does nothing.
pub fn install_log(filter: &str, json: bool) -> Result<(), String> {
    let filter = format!("{QUIET},{filter}");
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("log filter: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Already installed (several gateways in one test process): keep that one.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}
