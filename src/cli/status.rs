//! `tidegate status`: what a running gateway says of itself.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::admin::{Admin, AdminArgs};

/// Flags of `tidegate status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate status\n  tidegate status --admin http://10.0.0.7:7701 --api-key $KEY\n  tidegate status --json | jq .connections"
)]
pub struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the answer as JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// Prints `GET /v1/status`; fails when there is no answer within 5 s.
    pub async fn run(self) -> Result<()> {
        let status = Admin::new(&self.admin)?.get_json("/v1/status", LIMIT).await?;
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", serde_json::to_string_pretty(&status)?)?;
        } else {
            write!(stdout, "{}", table(&status))?;
        }
        Ok(())
    }
}

/// One line per value, names aligned, nested names joined by dots; the best
/// known first, the rest in alphabetical order.
fn table(status: &Value) -> String {
    let mut rows = Vec::new();
    flatten(String::new(), status, &mut rows);
    let rank = |name: &str| {
        let top = name.split('.').next().unwrap_or(name);
        FIRST.iter().position(|first| *first == top).unwrap_or(FIRST.len())
    };
    rows.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

fn flatten(name: String, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(name, value, rows);
            }
        }
        _ => rows.push((name, words(value))),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(words).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

const LIMIT: Duration = Duration::from_secs(5);
const FIRST: [&str; 11] = [
    "gatewayId",
    "epoch",
    "phase",
    "ready",
    "version",
    "build",
    "pid",
    "uptimeSeconds",
    "connections",
    "users",
    "redis",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_is_aligned_ordered_and_complete() {
        let status = json!({
            "zebra": [1, "two"], "connections": 3, "redis": {"state": "up", "level": null},
            "gatewayId": "gw-1", "empty": {}, "list": [{"a": 1}],
        });
        let expected = "gatewayId    gw-1\n\
                        connections  3\n\
                        redis.level  -\n\
                        redis.state  up\n\
                        empty        {}\n\
                        list         [{\"a\":1}]\n\
                        zebra        1, two\n";
        assert_eq!(table(&status), expected);
    }
}
