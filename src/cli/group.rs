//! `tidegate group`: groups made and changed from the command line.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs};
use crate::types::{ConversationId, UserId};

/// Flags of `tidegate group`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate group create g:team 1 2 3 --owner 1\n  tidegate group add g:team 4 5\n  \
tidegate group remove g:team 4\n  tidegate group list g:team"
)]
pub struct GroupArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a group
    Create {
        /// Its id, g:<name>
        #[arg(value_parser = group)]
        group: ConversationId,
        /// Its members
        #[arg(value_name = "USER", value_parser = user)]
        users: Vec<UserId>,
        /// Whose group it is; a member too
        #[arg(long, value_name = "USER", value_parser = user)]
        owner: Option<UserId>,
        /// What members who join later see of what was before
        #[arg(long, default_value = "since-joining")]
        history: History,
    },
    /// Add members
    Add {
        /// The group, g:<name>
        #[arg(value_parser = group)]
        group: ConversationId,
        /// Who joins
        #[arg(value_name = "USER", value_parser = user, required = true)]
        users: Vec<UserId>,
    },
    /// Remove members
    Remove {
        /// The group, g:<name>
        #[arg(value_parser = group)]
        group: ConversationId,
        /// Who leaves
        #[arg(value_name = "USER", value_parser = user, required = true)]
        users: Vec<UserId>,
    },
    /// List the members, one `user role` a line
    List {
        /// The group, g:<name>
        #[arg(value_parser = group)]
        group: ConversationId,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum History {
    Full,
    SinceJoining,
}

impl GroupArgs {
    /// Does it; fails with the gateway's refusal, or when a call is not
    /// answered within 10 s.
    pub async fn run(self) -> Result<()> {
        let admin = Admin::new(&self.admin)?;
        let mut stdout = std::io::stdout();
        match self.verb {
            Verb::Create { group, users, owner, history } => {
                let history = match history {
                    History::Full => "full",
                    History::SinceJoining => "since_joining",
                };
                let members: Vec<i64> = users.into_iter().map(UserId::get).collect();
                let mut body = json!({ "id": group.to_string(), "members": members, "history": history });
                if let (Some(owner), Some(fields)) = (owner, body.as_object_mut()) {
                    fields.insert("owner".to_owned(), owner.get().into());
                }
                let made = admin.post_json("/v1/conversations", &body, LIMIT).await?;
                writeln!(stdout, "{group} members={}", number(&made, "members"))?;
            }
            Verb::Add { group, users } => {
                for user in users {
                    let path = format!("/v1/conversations/{group}/members/{user}");
                    let member = admin.put_json(&path, &json!({}), LIMIT).await?;
                    writeln!(stdout, "{}", member_line(&member))?;
                }
            }
            Verb::Remove { group, users } => {
                for user in users {
                    let path = format!("/v1/conversations/{group}/members/{user}");
                    admin.delete_json(&path, LIMIT).await?;
                    writeln!(stdout, "{user} removed")?;
                }
            }
            Verb::List { group } => list(&admin, &group, &mut stdout).await?,
        }
        Ok(())
    }
}

async fn list(admin: &Admin, group: &ConversationId, out: &mut impl Write) -> Result<()> {
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/conversations/{group}/members?limit=1000{cursor}");
        let page = admin.get_json(&path, LIMIT).await?;
        for member in page.get("members").and_then(Value::as_array).into_iter().flatten() {
            writeln!(out, "{}", member_line(member))?;
        }
        let Some(next) = page.get("nextCursor").and_then(Value::as_str) else { return Ok(()) };
        cursor = format!("&cursor={next}");
    }
}

fn member_line(member: &Value) -> String {
    let role = member.get("role").and_then(Value::as_str).unwrap_or("member");
    let muted = if number(member, "muteUntil") > 0 { " muted" } else { "" };
    format!("{} {role}{muted}", number(member, "userId"))
}

fn number(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or(0)
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

fn group(text: &str) -> Result<ConversationId, String> {
    match ConversationId::parse(text) {
        Ok(group @ ConversationId::Group(_)) => Ok(group),
        _ => Err("a group is g: and 1-64 characters of [A-Za-z0-9_.-]".to_owned()),
    }
}

const LIMIT: Duration = Duration::from_secs(10);
