//! What an append costs beside the bare write and sync it cannot beat.
//!
//! `cargo test --release --lib pace -- --ignored --nocapture`

use std::io::Write;
use std::time::Instant;

use super::*;
use crate::wire::pb::push::Content;

const CONVERSATIONS: usize = 2_000;

/// Messages of 64 characters, each to one of many conversations.
fn batches(count: usize, size: usize) -> Vec<Vec<Append>> {
    let one = |n: usize| {
        let partner = user(2 + i64::try_from(n * 7_919 % CONVERSATIONS).unwrap());
        let mut append = message(&ConversationId::between(user(1), partner), &format!("{n:032x}"));
        append.server_msg_id = format!("{:018}", 249_847_349_919_088_640 + n);
        append.push.server_msg_id.clone_from(&append.server_msg_id);
        append.push.content = Some(Content::TextContent("x".repeat(64)));
        append
    };
    (0..count).map(|batch| (0..size).map(|n| one(batch * size + n)).collect()).collect()
}

fn per_second(messages: usize, began: Instant) -> f64 {
    f64::from(u32::try_from(messages).unwrap()) / began.elapsed().as_secs_f64()
}

fn floor(dir: &Path, batches: &[Vec<Append>]) {
    let mut file = std::fs::File::options().append(true).create(true).open(dir.join("floor")).unwrap();
    for batch in batches {
        let bytes: Vec<u8> = batch.iter().flat_map(|append| crate::store::encode(&append.push)).collect();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    }
}

async fn append_all(store: &EmbeddedStore, batches: &[Vec<Append>]) {
    for batch in batches {
        let outcomes = store.append(&batch.iter().collect::<Vec<_>>()).await.outcomes;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Appended::Stored { .. }))));
    }
}

#[tokio::test]
#[ignore = "it measures"]
async fn pace() {
    let messages: usize = std::env::var("PACE_MESSAGES").map_or(20_000, |count| count.parse().unwrap());
    for size in [1, 16, 128] {
        let batches = batches(messages / size, size);
        let dir = tempfile::tempdir_in(".").unwrap();
        let began = Instant::now();
        floor(dir.path(), &batches);
        let floor = per_second(messages, began);
        let store = open(dir.path());
        let began = Instant::now();
        append_all(&store, &batches).await;
        let store = per_second(messages, began);
        eprintln!(
            "{size:3} a commit: floor {floor:.0}/s, store {store:.0}/s = {:.0} %",
            store / floor * 100.0
        );
    }
}

/// For an instruction counter: twice as many messages cost this much more.
#[tokio::test]
#[ignore = "it is measured"]
async fn paced() {
    let messages: usize = std::env::var("PACE_MESSAGES").map_or(20_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&store, &batches(messages / 16, 16)).await;
}
