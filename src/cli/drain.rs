//! `tidegate drain`: clients go elsewhere, then the gateway ends.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs};

/// Flags of `tidegate drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate drain\n  tidegate drain --within 60")]
pub struct DrainArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Seconds over which clients are asked to leave; default: as configured
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    within: Option<u64>,
}

impl DrainArgs {
    /// Returns when it has begun.
    pub async fn run(self) -> Result<()> {
        let body = self.within.map_or_else(|| json!({}), |s| json!({ "deadlineMs": s * 1000 }));
        let answer = Admin::new(&self.admin)?.post_json("/v1/drain", &body, LIMIT).await?;
        let draining = answer.get("draining").and_then(Value::as_u64).unwrap_or(0);
        println!("{draining} connections are asked to leave");
        Ok(())
    }
}

const LIMIT: Duration = Duration::from_secs(10);
