//! The suite every backend passes.

mod groups;

use self::groups::suite_groups;
use super::*;
use crate::redis::testing::TestRedis;
use crate::store::Left;
use crate::types::unix_ms;
use crate::wire::pb::Direction;
use crate::wire::pb::push::Content;

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn append(from: i64, to: i64, id: &str, text: &str) -> Append {
    let conversation = ConversationId::between(user(from), user(to));
    let server_msg_id = format!("s-{from}-{id}");
    Append {
        from: user(from),
        client_msg_id: id.to_owned(),
        content_hash: crate::types::fnv1a64(text.as_bytes()),
        server_time: unix_ms(),
        push: Push {
            conversation_id: conversation.to_string(),
            server_msg_id: server_msg_id.clone(),
            from_user_id: from,
            client_msg_id: id.to_owned(),
            server_time: unix_ms(),
            content: Some(Content::TextContent(text.to_owned())),
            ..Push::default()
        },
        server_msg_id,
        conversation,
    }
}

async fn stored(store: &Store, message: Append) -> (i64, u64) {
    match store.append(&[&message]).await.outcomes.remove(0).unwrap() {
        Appended::Stored { seq, epoch } => (seq, epoch),
        other => panic!("{other:?}"),
    }
}

async fn append_all(store: &Store, batch: &[Append]) -> Vec<Result<Appended, StoreError>> {
    store.append(&batch.iter().collect::<Vec<_>>()).await.outcomes
}

async fn read_page(store: &Store, from: i64, limit: usize, direction: Direction) -> Page {
    let conversation = ConversationId::between(user(1), user(2));
    store.page(&conversation, Span { from, limit, max_bytes: 1 << 20, direction }).await.unwrap()
}

fn seqs(page: &Page) -> Vec<i64> {
    page.messages.iter().map(|m| m.seq).collect()
}

/// In a conversation of two both have written, or only one of them.
async fn suite_mutual(store: &Store) {
    let between = |peer| ConversationId::between(user(70), user(peer));
    let all = [between(71), between(72), ConversationId::parse("g:team").unwrap()];
    assert_eq!(store.mutual(&all).await.unwrap(), [false, false, false]);
    for (from, to) in [(70, 71), (71, 70), (70, 72)] {
        stored(store, append(from, to, &format!("mutual-{from}"), "hi")).await;
    }
    assert_eq!(store.mutual(&all).await.unwrap(), [true, false, false]);
    let batch = [append(70, 72, "mutual-2", "anybody?"), append(72, 70, "mutual-3", "yes")];
    assert!(append_all(store, &batch).await.iter().all(Result::is_ok));
    assert_eq!(store.mutual(&all).await.unwrap(), [true, true, false]);
    store.block(&between(72), user(72), true).await.unwrap();
    assert_eq!(store.mutual(&all).await.unwrap(), [true, false, false]);
}

async fn suite(store: Store) {
    let conversation = ConversationId::between(user(1), user(2));
    suite_mutual(&store).await;
    assert_eq!(store.conversations(user(1), 0, 10).await.unwrap(), Conversations::default());
    assert_eq!(read_page(&store, 1, 10, Direction::Forward).await, Page::default());

    // Seqs without holes, from both sides, one history.
    let (seq, epoch) = stored(&store, append(1, 2, "a", "hello")).await;
    assert!(seq == 1 && epoch > 0);
    let batch: Vec<_> = (0..9).map(|i| append(2, 1, &format!("b{i}"), "hi")).collect();
    for (i, outcome) in append_all(&store, &batch).await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap(), Appended::Stored { seq: i64::try_from(i).unwrap() + 2, epoch });
    }

    // Dedup: the original's ids; per sender; other content is a conflict.
    let mut again = append(1, 2, "a", "hello");
    again.server_msg_id = "another".to_owned();
    match append_all(&store, &[again]).await.remove(0).unwrap() {
        Appended::Duplicate { seq, epoch: e, server_msg_id, server_time } => {
            assert_eq!((seq, e, server_msg_id.as_str()), (1, epoch, "s-1-a"));
            assert!(server_time > 0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        append_all(&store, &[append(1, 2, "a", "other")]).await.remove(0).unwrap(),
        Appended::Conflict
    );
    assert_eq!(stored(&store, append(2, 1, "a", "hello")).await.0, 11);
    // Twice within one batch.
    let twice = append_all(&store, &[append(1, 2, "t", "x"), append(1, 2, "t", "x")]).await;
    assert!(matches!(twice[0], Ok(Appended::Stored { seq: 12, .. })));
    assert!(matches!(twice[1], Ok(Appended::Duplicate { seq: 12, .. })));

    // Pages in both directions.
    let page = read_page(&store, 3, 4, Direction::Forward).await;
    assert_eq!((seqs(&page), page.has_more, page.top, page.first_available), (vec![3, 4, 5, 6], true, 12, 1));
    assert_eq!((page.epoch, page.messages[0].epoch), (epoch, epoch));
    assert_eq!(page.messages[0].client_msg_id, "b1");
    let page = read_page(&store, 11, 10, Direction::Forward).await;
    assert_eq!((seqs(&page), page.has_more), (vec![11, 12], false));
    let page = read_page(&store, 0, 2, Direction::Backward).await;
    assert_eq!((seqs(&page), page.has_more), (vec![12, 11], true));
    let page = read_page(&store, 2, 5, Direction::Backward).await;
    assert_eq!((seqs(&page), page.has_more), (vec![2, 1], false));
    let page = read_page(&store, 13, 5, Direction::Forward).await;
    assert_eq!((seqs(&page), page.has_more, page.top), (vec![], false, 12));

    // Bounded in bytes too, in both directions, but never to nothing.
    for n in 0..70 {
        stored(&store, append(1, 9, &format!("n{n}"), &"x".repeat(1_000))).await;
    }
    let long = ConversationId::between(user(1), user(9));
    for direction in [Direction::Forward, Direction::Backward] {
        for (limit, max_bytes, counts) in
            [(100, 1 << 20, 70..=70), (64, 1 << 20, 64..=64), (100, 50_000, 40..=49), (100, 1, 1..=1)]
        {
            let page = store.page(&long, Span { from: 0, limit, max_bytes, direction }).await.unwrap();
            let count = page.messages.len();
            assert!(counts.contains(&count), "{count} of {limit} and {max_bytes} bytes");
            assert_eq!(page.has_more, count < 70);
            let forward = direction == Direction::Forward;
            assert_eq!(page.messages[0].seq, if forward { 1 } else { 70 });
            assert!(seqs(&page).windows(2).all(|w| w[1] - w[0] == if forward { 1 } else { -1 }));
        }
    }
    assert_eq!(read_page(&store, 0, 1, Direction::Backward).await.top, 12);

    // Positions grow, stop at the top, and what is read was received.
    let progress =
        |delivered, read| Progress { conversation: conversation.clone(), user: user(2), delivered, read };
    let cursors =
        store.advance(&[progress(5, 0), progress(3, 0), progress(0, 7), progress(9_999, 0)]).await.unwrap();
    let grown: Vec<_> =
        cursors.iter().flatten().map(|c| (c.delivered, c.read, c.delivered_grew, c.read_grew)).collect();
    assert_eq!(grown, [(5, 0, true, false), (5, 0, false, false), (7, 7, true, true), (12, 7, true, false)]);
    assert!(cursors.iter().flatten().all(|c| c.epoch == epoch));

    let stranger = ConversationId::between(user(1), user(99));
    assert_eq!(store.known(&[conversation.clone(), stranger]).await.unwrap(), [true, false]);

    // Both sides find the conversation, most recent first.
    stored(&store, append(3, 1, "c", "yo")).await;
    let list = store.conversations(user(1), 0, 10).await.unwrap();
    assert_eq!(list.positions.len(), 3);
    let with_2 = list.positions.iter().find(|p| p.conversation_id == "p2p:1:2").unwrap();
    assert_eq!((with_2.seq, with_2.unread, with_2.peer_delivered_seq, with_2.peer_read_seq), (12, 12, 12, 7));
    assert_eq!(with_2.server_msg_id, "s-1-t");
    let of_2 = store.conversations(user(2), 0, 10).await.unwrap();
    assert_eq!((of_2.positions[0].read_seq, of_2.positions[0].unread), (7, 5));
    let paged = store.conversations(user(1), 0, 1).await.unwrap();
    assert_eq!((paged.positions.len(), paged.has_more), (1, true));
    assert!(!store.conversations(user(1), 2, 1).await.unwrap().has_more);
}

#[tokio::test]
async fn memory() {
    suite(Store::Memory(MemoryStore::new())).await;
    suite_groups(&Store::Memory(MemoryStore::new())).await;
}

#[tokio::test]
async fn embedded() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |name| Store::Embedded(EmbeddedStore::open(&dir.path().join(name), Left::Anyhow, false).unwrap().0);
    suite(open("a")).await;
    suite_groups(&open("b")).await;
}

#[tokio::test]
async fn redis() {
    let server = TestRedis::start();
    suite(Store::Redis(RedisStore::new(server.client().await, TestRedis::keys()))).await;
    let server = TestRedis::start();
    suite_groups(&Store::Redis(RedisStore::new(server.client().await, TestRedis::keys()))).await;
}

#[tokio::test]
async fn redis_errors_are_told_apart() {
    let server = TestRedis::start();
    let client = server.client().await;
    let store = Store::Redis(RedisStore::new(client.clone(), TestRedis::keys()));
    client.command::<String>(::redis::cmd("SET").arg("{c:p2p:1:2}:meta").arg("x").to_owned()).await.unwrap();
    let outcome = append_all(&store, &[append(1, 2, "a", "x"), append(1, 3, "a", "x")]).await;
    assert!(matches!(outcome[0], Err(StoreError::Broken(_))), "{:?}", outcome[0]);
    assert!(matches!(outcome[1], Ok(Appended::Stored { .. })), "its neighbour is not harmed");
    drop(server);
    let outcome = append_all(&store, &[append(1, 3, "b", "x")]).await;
    assert!(matches!(outcome[0], Err(StoreError::Unavailable)));
}

#[tokio::test]
async fn another_replication_id_is_another_history() {
    let server = TestRedis::start();
    let client = server.client().await;
    let store = Store::Redis(RedisStore::new(client.clone(), TestRedis::keys()));
    let (_, epoch) = stored(&store, append(1, 2, "a", "x")).await;
    assert_eq!(stored(&store, append(1, 2, "b", "x")).await, (2, epoch));
    let mut other = ::redis::cmd("HSET");
    other.arg(&["{c:p2p:1:2}:meta", "replid", "of-another-server"]);
    client.command::<i64>(other).await.unwrap();
    let (seq, raised) = stored(&store, append(1, 2, "c", "x")).await;
    assert!(seq == 3 && raised > epoch);
    assert_eq!(stored(&store, append(1, 2, "d", "x")).await, (4, raised), "once");
    // The original is named as it is now.
    let again = store.append(&[&append(1, 2, "a", "x")]).await.outcomes.remove(0).unwrap();
    assert!(matches!(again, Appended::Duplicate { seq: 1, epoch, .. } if epoch == raised));
}
