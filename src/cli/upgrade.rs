//! `tidegate upgrade`: another program takes over from the running one.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs};

/// Flags of `tidegate upgrade`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate upgrade\n  tidegate upgrade --binary /opt/tidegate/2.0/tidegate\n  tidegate upgrade --json | jq .pauseMs\n\n\
Clients notice nothing but the pause. Where it fails, nothing has happened and the exit code is not 0."
)]
pub struct UpgradeArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The new program; default: the file the running one was started from
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print the answer as JSON instead of a sentence
    #[arg(long)]
    json: bool,
}

impl UpgradeArgs {
    /// Asks for it and waits until it is done, at most two minutes.
    pub async fn run(self) -> Result<()> {
        let binary = self.binary.map(std::path::absolute).transpose().context("--binary")?;
        let body = binary.map_or_else(|| json!({}), |binary| json!({ "binary": binary }));
        let report = Admin::new(&self.admin)?.post_json("/v1/upgrade", &body, LIMIT).await?;
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            writeln!(stdout, "{}", sentence(&report))?;
        }
        Ok(())
    }
}

const LIMIT: Duration = Duration::from_secs(120);

fn sentence(report: &Value) -> String {
    let number = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or(0);
    let build = report.get("build").and_then(Value::as_str).unwrap_or("unknown");
    format!(
        "process {} (build {build}) has taken over {} connections, {} of them in the middle of a message and {} \
         with unsent bytes; {} were asked to come back; clients waited {} ms",
        number("pid"),
        number("moved"),
        number("midFrame"),
        number("withUnsent"),
        number("drained"),
        number("pauseMs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_one_sentence() {
        let report = json!({"pid": 7, "build": "abc", "moved": 3, "midFrame": 2, "withUnsent": 1, "drained": 0, "pauseMs": 9});
        assert!(sentence(&report).starts_with("process 7 (build abc) has taken over 3 connections, 2 of"));
    }
}
