//! What is particular to files: they are closed, opened, kept and outlived.

mod pace;
mod power;

use super::rows::{self, Identity, Space};
use super::*;
use crate::store::{History, Keep, MemberChange, Retention, Role, Span};
use crate::types::{UserId, unix_ms};
use crate::wire::pb::push::Content;
use crate::wire::pb::{Direction, Push};

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, Left::Anyhow, false).unwrap().0
}

fn message(conversation: &ConversationId, id: &str) -> Append {
    let server_msg_id = format!("s-{id}");
    let push = Push {
        conversation_id: conversation.to_string(),
        server_msg_id: server_msg_id.clone(),
        client_msg_id: id.to_owned(),
        from_user_id: 1,
        server_time: unix_ms(),
        ..Push::default()
    };
    Append {
        conversation: conversation.clone(),
        from: user(1),
        client_msg_id: id.to_owned(),
        server_msg_id,
        content_hash: 7,
        server_time: unix_ms(),
        push,
    }
}

async fn append(store: &EmbeddedStore, to: &ConversationId, id: &str) -> Appended {
    store.append(&[&message(to, id)]).await.outcomes.remove(0).unwrap()
}

fn all() -> Span {
    Span { from: 1, limit: 100, max_bytes: 1 << 20, direction: Direction::Forward }
}

#[tokio::test]
async fn everything_is_there_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, team) = (ConversationId::between(user(1), user(2)), ConversationId::parse("g:team").unwrap());
    let store = open(dir.path());
    let Appended::Stored { epoch, .. } = append(&store, &pair, "a").await else { panic!() };
    store.create(&team, &[(user(1), Role::Owner), (user(2), Role::Member)], History::Full).await.unwrap();
    for id in ["a", "b", "c"] {
        append(&store, &team, id).await;
    }
    store.put_member(&team, user(3), MemberChange::default()).await.unwrap();
    store.block(&team, user(9), true).await.unwrap();
    let progress = Progress { conversation: team.clone(), user: user(2), delivered: 3, read: 2 };
    let cursor = store.advance(&[progress]).await.unwrap().remove(0).unwrap();
    assert_eq!((cursor.delivered, cursor.read), (3, 2));
    let before = (
        store.page(&team, all()).await.unwrap(),
        store.describe(&team).await.unwrap(),
        store.positions(user(2), &[team.clone(), pair.clone()]).await.unwrap(),
        store.index(&[user(1), user(2), user(3)], 0, 0, 9).await.unwrap(),
        store.members(&team, None, 9).await.unwrap(),
        store.blacklist(&team).await.unwrap(),
    );
    for settled in [false, true] {
        let store = if settled { open(dir.path()) } else { reopen(&store, dir.path()).await };
        let after = (
            store.page(&team, all()).await.unwrap(),
            store.describe(&team).await.unwrap(),
            store.positions(user(2), &[team.clone(), pair.clone()]).await.unwrap(),
            store.index(&[user(1), user(2), user(3)], 0, 0, 9).await.unwrap(),
            store.members(&team, None, 9).await.unwrap(),
            store.blacklist(&team).await.unwrap(),
        );
        assert_eq!(after, before);
        let again = append(&store, &team, "b").await;
        assert!(matches!(again, Appended::Duplicate { seq: 2, .. }), "{again:?}");
        store.prepare_close().await.unwrap();
        store.close().await;
    }
    let store = open(dir.path());
    assert_eq!(append(&store, &pair, "b").await, Appended::Stored { seq: 2, epoch });
    // A new conversation does not get the place of another one.
    append(&store, &ConversationId::between(user(1), user(3)), "a").await;
    assert_eq!(store.page(&team, all()).await.unwrap(), before.0);
}

async fn reopen(store: &EmbeddedStore, dir: &Path) -> EmbeddedStore {
    store.close().await;
    assert!(store.page(&ConversationId::between(user(1), user(2)), all()).await.is_err(), "closed");
    open(dir)
}

#[tokio::test]
async fn a_prepared_close_leaves_no_long_journal_to_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let pair = ConversationId::between(user(1), user(2));
    append(&store, &pair, "a").await;
    let journals = || {
        let files = std::fs::read_dir(engine::place(dir.path())).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|e| e == "jnl")).collect::<Vec<_>>()
    };
    let before = journals();
    store.prepare_close().await.unwrap();
    assert_eq!(journals(), before, "it is short");
    for n in 0..5 {
        let mut long = message(&pair, &n.to_string());
        long.push.content = Some(Content::TextContent("x".repeat(1 << 20)));
        assert!(matches!(store.append(&[&long]).await.outcomes[..], [Ok(Appended::Stored { .. })]));
    }
    store.prepare_close().await.unwrap();
    let after = journals();
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    store.suspend().await.unwrap();
    let next = EmbeddedStore::open(dir.path(), Left::Whole, false).unwrap().0;
    let page = next.page(&pair, all()).await.unwrap();
    assert!(page.top >= 6, "{page:?}");
    next.close().await;
    store.resume().await.unwrap();
    append(&store, &pair, "b").await;
    store.close().await;
}

#[tokio::test]
async fn brought_back_from_a_backup_it_is_another_history() {
    let dir = tempfile::tempdir().unwrap();
    let pair = ConversationId::between(user(1), user(2));
    let store = open(dir.path());
    let Appended::Stored { epoch, .. } = append(&store, &pair, "a").await else { panic!() };
    store.close().await;
    let store = EmbeddedStore::open(dir.path(), Left::Anyhow, true).unwrap().0;
    assert_eq!(store.page(&pair, all()).await.unwrap().epoch, epoch, "until something is appended");
    let Appended::Stored { seq: 2, epoch: raised } = append(&store, &pair, "b").await else { panic!() };
    assert!(raised > epoch);
    assert_eq!(append(&store, &pair, "c").await, Appended::Stored { seq: 3, epoch: raised }, "once");
    store.close().await;
    assert_eq!(append(&open(dir.path()), &pair, "d").await, Appended::Stored { seq: 4, epoch: raised });
}

#[tokio::test]
async fn what_cannot_be_opened_says_where_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let twice = EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap_err().to_string();
    assert!(twice.contains("another process"), "{twice}");
    store
        .write(Durability::Synced, true, |staged| {
            let newer = Identity { version: 99, lineage: 1, next_number: 1 };
            staged.put(Space::State, rows::identity(), &newer);
            Ok(())
        })
        .await
        .unwrap();
    store.close().await;
    let newer = EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap_err().to_string();
    assert!(newer.contains("newer version (layout 99"), "{newer}");
    assert!(newer.contains(&dir.path().display().to_string()), "{newer}");
    let mark = engine::place(dir.path()).join("version");
    std::fs::write(mark, b"FJL\x04").unwrap();
    let foreign = EmbeddedStore::open(dir.path(), Left::Anyhow, false).unwrap_err().to_string();
    assert!(foreign.contains("another version of the storage engine"), "{foreign}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let no_dir = EmbeddedStore::open(file.path(), Left::Anyhow, false).unwrap_err().to_string();
    assert!(no_dir.contains(&file.path().display().to_string()), "{no_dir}");
}

#[tokio::test]
async fn a_removed_group_leaves_nothing_and_old_ids_go() {
    let dir = tempfile::tempdir().unwrap();
    let team = ConversationId::parse("g:team").unwrap();
    let store = open(dir.path());
    store.create(&team, &[(user(1), Role::Owner)], History::Full).await.unwrap();
    for id in ["a", "b", "c"] {
        append(&store, &team, id).await;
    }
    store.delete(&team).await.unwrap();
    let rows = |space, prefix: Vec<u8>| store.read(move |view| view.engine.scan(space, &prefix, None, 100));
    assert_eq!(rows(Space::Messages, Vec::new()).await.unwrap().len(), 3);
    let any = Keep { age_ms: None, count: None };
    let retention = Retention { p2p: any, group: any };
    store.trim(unix_ms(), &retention, "").await.unwrap();
    assert_eq!(rows(Space::Messages, Vec::new()).await.unwrap().len(), 0);
    let left = async || {
        let left = rows(Space::State, Vec::new()).await.unwrap();
        left.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(left().await, [rows::identity(), rows::former(&team)]);
    let month = 30 * 24 * 3600 * 1000;
    store.trim(unix_ms() + month - 60_000, &retention, "").await.unwrap();
    assert_eq!(left().await.len(), 2);
    store.trim(unix_ms() + month + 60_000, &retention, "").await.unwrap();
    assert_eq!(left().await, [rows::identity()]);

    let now = unix_ms() / staged::PERIOD_MS;
    let old = message(&team, "old");
    store
        .write(Durability::Synced, true, move |staged| {
            for period in [now - 2, now - 1] {
                let key = rows::id(1, old.from, &old.client_msg_id);
                staged.put(Space::Ids(period), key, &rows::Original::default());
            }
            Ok(())
        })
        .await
        .unwrap();
    let periods = || store.read(|view| Ok(view.engine.periods()));
    assert_eq!(periods().await.unwrap(), [now, now - 1, now - 2]);
    store.trim(unix_ms(), &retention, "").await.unwrap();
    assert_eq!(periods().await.unwrap(), [now, now - 1]);
    store.close().await;
    let store = open(dir.path());
    assert_eq!(store.read(|view| Ok(view.engine.periods())).await.unwrap(), [now, now - 1]);
}

#[tokio::test]
async fn a_step_of_trimming_is_bounded_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let pair = ConversationId::between(user(1), user(2));
    let store = open(dir.path());
    let batch: Vec<Append> = (0..5_000).map(|n| message(&pair, &format!("m{n}"))).collect();
    assert!(store.append(&batch.iter().collect::<Vec<_>>()).await.outcomes.iter().all(Result::is_ok));
    let one = Keep { age_ms: None, count: Some(1) };
    let (mut cursor, mut steps) = (String::new(), Vec::new());
    loop {
        let step = store.trim(unix_ms(), &Retention { p2p: one, group: one }, &cursor).await.unwrap();
        steps.push(step.messages);
        cursor = step.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(steps, [2_000, 2_000, 999]);
    let page = store.page(&pair, all()).await.unwrap();
    assert_eq!((page.first_available, page.messages.len()), (5_000, 1));
}

#[tokio::test]
async fn after_an_error_the_files_are_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let pair = ConversationId::between(user(1), user(2));
    let store = open(dir.path());
    append(&store, &pair, "a").await;
    let work = |_: &mut Staged| -> Result<(), EngineError> { Ok(()) };
    store.write(Durability::Lazy, false, work).await.unwrap();
    // As if the engine had failed: the files are gone from under the thread.
    store.shared.take_engine(Duration::from_secs(5));
    let outcome = store.append(&[&message(&pair, "b")]).await.outcomes.remove(0);
    assert!(matches!(outcome, Err(StoreError::Unavailable)), "{outcome:?}");
    let started = std::time::Instant::now();
    loop {
        match store.append(&[&message(&pair, "b")]).await.outcomes.remove(0) {
            Ok(appended) => {
                break assert!(matches!(appended, Appended::Stored { seq: 2, .. }), "{appended:?}");
            }
            Err(_) => assert!(started.elapsed() < Duration::from_secs(10), "never works again"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.page(&pair, all()).await.unwrap().messages.len(), 2);
}
