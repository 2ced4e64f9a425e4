//! Who is online, how many are, and who is told of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

#[path = "../common/mod.rs"]
mod common;

mod cost;
mod losses;
mod off;
mod online;
mod visibility;
mod watching;

use std::time::{Duration, Instant};

use common::{Client, Gateway, Options, eventually, secs};
use serde_json::Value;
use tidegate::proto::envelope::Payload;
use tidegate::proto::{PresenceEvent, PresenceReq};

/// Patience on a machine that does much else.
const LONG: Duration = secs(30);
/// A grace that tests can wait for, and by when it is over for sure.
const GRACE: &str = "[presence]\ngrace = \"1s\"\n";

/// Everybody may watch everybody.
fn open(options: Options) -> Options {
    options.config(format!("{GRACE}visibility = \"all\"\n"))
}

/// What is known of these users.
async fn users(gateway: &Gateway, ids: &str) -> Vec<Value> {
    let reply = gateway.http().get(&format!("/v1/presence/users?ids={ids}")).await.success().json();
    reply["users"].as_array().unwrap().clone()
}

async fn is_online(gateway: &Gateway, id: i64) -> bool {
    users(gateway, &id.to_string()).await[0]["online"].as_bool().unwrap()
}

async fn becomes(gateway: &Gateway, id: i64, online: bool) {
    eventually(&format!("{id} is online: {online}"), LONG, || async {
        (is_online(gateway, id).await == online).then_some(())
    })
    .await;
}

async fn count_becomes(gateway: &Gateway, count: u64) {
    eventually(&format!("{count} are online"), LONG, || async {
        let reply = gateway.http().get("/v1/presence/online-count").await.success().json();
        (reply["count"] == count).then_some(())
    })
    .await;
}

fn request(users: &[i64], watch: bool) -> Payload {
    Payload::Presence(PresenceReq { user_ids: users.to_vec(), watch })
}

trait Watcher {
    /// Begins to watch; returns what is told first, by user.
    async fn watch(&mut self, users: &[i64]) -> Vec<PresenceEvent>;
    /// The next event.
    async fn expect_event(&mut self) -> PresenceEvent;
    /// Every event that came, and comes within `span`.
    async fn events(&mut self, span: Duration) -> Vec<PresenceEvent>;
}

impl Watcher for Client {
    async fn watch(&mut self, users: &[i64]) -> Vec<PresenceEvent> {
        self.send(request(users, true)).await;
        let mut told = Vec::new();
        for _ in users {
            told.push(self.expect_event().await);
        }
        told.sort_by_key(|event| event.user_id);
        told
    }

    async fn expect_event(&mut self) -> PresenceEvent {
        let end = Instant::now() + LONG;
        loop {
            // Keeps the connection alive, and has everything queued before.
            self.beat().await;
            let mut first = None;
            for payload in self.drain() {
                match payload {
                    Payload::PresenceEvent(event) if first.is_none() => first = Some(event),
                    other => self.put_back(other),
                }
            }
            if let Some(event) = first {
                return event;
            }
            assert!(Instant::now() < end, "no event");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn events(&mut self, span: Duration) -> Vec<PresenceEvent> {
        let end = Instant::now() + span;
        let mut events = Vec::new();
        loop {
            self.beat().await;
            events.extend(self.drain().into_iter().filter_map(|payload| match payload {
                Payload::PresenceEvent(event) => Some(event),
                _ => None,
            }));
            if Instant::now() >= end {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
