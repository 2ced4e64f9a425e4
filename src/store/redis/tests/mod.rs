//! What holds only here: crashes half-way, faults of the server, levels.

mod faults;
mod groups;
mod levels;

use std::time::{Duration, Instant};

use super::super::{Append, Appended, Span, StoreError};
use super::RedisStore;
use crate::redis::testing::{Durability, TestRedis};
use crate::redis::{Assurance, Client, Link};
use crate::types::{ConversationId, UserId, unix_ms};
use crate::wire::pb::{Direction, Push};

const AUTO: Durability = Durability { level: None, replicas: 1 };
const PATIENCE: Duration = Duration::from_secs(20);

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn id(text: &str) -> ConversationId {
    ConversationId::parse(text).unwrap()
}

fn message(to: &str, from: i64, client_msg_id: &str) -> Append {
    let conversation = id(to);
    let server_msg_id = format!("s-{client_msg_id}");
    Append {
        from: user(from),
        client_msg_id: client_msg_id.to_owned(),
        content_hash: 7,
        server_time: unix_ms(),
        push: Push { server_msg_id: server_msg_id.clone(), server_time: unix_ms(), ..Push::default() },
        server_msg_id,
        conversation,
    }
}

async fn say(store: &RedisStore, message: &Append) -> Result<Appended, StoreError> {
    store.append(&[message]).await.outcomes.remove(0)
}

/// As a lane does it: until there is an answer. A duplicate must be one of
/// itself.
async fn say_until_stored(store: &RedisStore, message: &Append) -> (i64, u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        match say(store, message).await {
            Ok(Appended::Stored { seq, epoch }) => return (seq, epoch),
            Ok(Appended::Duplicate { seq, epoch, server_msg_id, .. }) => {
                assert_eq!(server_msg_id, message.server_msg_id);
                return (seq, epoch);
            }
            Err(StoreError::Unavailable) => assert!(Instant::now() < end, "never stored"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn log_of(store: &RedisStore, conversation: &str) -> Vec<(i64, String)> {
    let span = Span { from: 1, limit: 100_000, max_bytes: 1 << 30, direction: Direction::Forward };
    let end = Instant::now() + PATIENCE;
    let page = loop {
        match store.page(&id(conversation), span).await {
            Ok(page) => break page,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    page.messages.into_iter().map(|push| (push.seq, push.server_msg_id)).collect()
}

fn store(client: &Client) -> RedisStore {
    RedisStore::new(client.clone(), TestRedis::keys())
}

/// Waits until this holds of what stands behind an ack.
async fn assured(client: &Client, is: impl Fn(&Assurance) -> bool) -> Assurance {
    let mut link = client.link();
    let reached = link.wait_for(|link| matches!(link, Link::Up { assurance, .. } if is(assurance)));
    match &*tokio::time::timeout(PATIENCE, reached).await.expect("in time").unwrap() {
        Link::Up { assurance, .. } => assurance.clone(),
        Link::Down => unreachable!(),
    }
}

fn generation(client: &Client) -> u64 {
    match &*client.link().borrow() {
        Link::Up { generation, .. } => *generation,
        Link::Down => 0,
    }
}
