//! What a kill, a power cut or a bad sector leaves of the journals.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::journal::{Journal, journals};
use super::*;
use crate::wire::pb::push::Content;

const SYNCED: i64 = 12;
const IN_FLIGHT: i64 = 9;
const PAGE: usize = 4096;

fn pair() -> ConversationId {
    ConversationId::between(user(1), user(2))
}

fn long(id: i64) -> Append {
    let mut append = message(&pair(), &format!("m{id}"));
    let length = usize::try_from(id * 2_900 % 20_000).unwrap();
    append.push.content = Some(Content::TextContent("x".repeat(length)));
    append
}

/// Appends these in one commit; how many of them were there.
async fn append_all(store: &EmbeddedStore, ids: std::ops::Range<i64>) -> usize {
    let batch: Vec<Append> = ids.clone().map(long).collect();
    let outcomes = store.append(&batch.iter().collect::<Vec<_>>()).await.outcomes;
    let known = |(outcome, id): (Result<Appended, _>, i64)| match outcome.unwrap() {
        Appended::Stored { seq, .. } => {
            assert_eq!(seq, id + 1);
            false
        }
        Appended::Duplicate { seq, .. } => {
            assert_eq!(seq, id + 1);
            true
        }
        other => panic!("{other:?}"),
    };
    outcomes.into_iter().zip(ids).filter(|(outcome, id)| known((outcome.clone(), *id))).count()
}

async fn advance(store: &EmbeddedStore, delivered: i64) {
    let progress = Progress { conversation: pair(), user: user(2), delivered, read: 0 };
    store.advance(&[progress]).await.unwrap();
}

async fn seqs(store: &EmbeddedStore) -> Vec<i64> {
    store.page(&pair(), all()).await.unwrap().messages.iter().map(|push| push.seq).collect()
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("cp").arg("-a").arg(from.join("store")).arg(to.path()).status();
    assert!(done.unwrap().success());
    to
}

fn last_journal(dir: &Path) -> PathBuf {
    journals(&engine::place(dir)).unwrap().pop().unwrap().1
}

/// What is in the last journal, without the zeros at its end.
fn content(dir: &Path) -> Vec<u8> {
    let path = last_journal(dir);
    let (end, _) = Journal::open(path.clone()).unwrap().end().unwrap();
    let mut content = vec![0; usize::try_from(end).unwrap()];
    std::fs::File::open(path).unwrap().read_exact_at(&mut content, 0).unwrap();
    content
}

/// The journal as a power cut leaves it: `written` up to `synced`, and of the
/// rest whatever had reached the disk.
fn cut(mut written: Vec<u8>, synced: usize, kind: usize) -> Vec<u8> {
    let at = fastrand::usize(synced..=written.len());
    match kind {
        // The file did not grow.
        0 => written.truncate(at),
        // It did, but nothing was written there.
        1 => written[at..].fill(0),
        // Some pages were not written, in any order.
        2 => {
            for _ in 0..fastrand::usize(1..4) {
                let page = fastrand::usize(synced..written.len()) / PAGE * PAGE;
                let end = (page + PAGE).min(written.len());
                written[page.max(synced)..end].fill(0);
            }
        }
        // Something else was.
        _ => written[at..].iter_mut().for_each(|byte| *byte = fastrand::u8(..)),
    }
    written
}

#[tokio::test]
async fn a_power_cut_costs_what_was_not_synced_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for id in 0..SYNCED {
        append_all(&store, id..id + 1).await;
        advance(&store, id).await;
    }
    append_all(&store, SYNCED..SYNCED + 1).await;
    let before = copy(dir.path());
    let synced = content(before.path()).len();
    // What is not synced on its own, and a commit in flight.
    advance(&store, SYNCED).await;
    advance(&store, SYNCED + 1).await;
    let (first, end) = (SYNCED + 1, SYNCED + 1 + IN_FLIGHT);
    append_all(&store, first..end).await;
    let written = content(dir.path());
    assert!(written.len() > synced + 4 * PAGE);
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    eprintln!("seed {seed}");
    let mut kept = 0;
    for round in 0..40 {
        let dir = copy(before.path());
        std::fs::write(last_journal(dir.path()), cut(written.clone(), synced, round % 4)).unwrap();
        let store = open(dir.path());
        let there = seqs(&store).await;
        assert!([first, end].contains(&i64::try_from(there.len()).unwrap()), "round {round}: {there:?}");
        // All of a commit is there, or nothing.
        let known = append_all(&store, 0..end).await;
        assert_eq!(known, there.len(), "round {round}");
        kept += usize::from(known > usize::try_from(first).unwrap());
        store.close().await;
        let store = open(dir.path());
        assert_eq!(seqs(&store).await, (1..=end).collect::<Vec<_>>(), "round {round}");
        store.close().await;
    }
    assert!(kept < 40, "nothing was cut");
}

#[tokio::test]
async fn damage_to_what_was_synced_is_not_taken_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ends = Vec::new();
    for id in 0..6 {
        append_all(&store, id..id + 1).await;
        ends.push(content(dir.path()).len());
    }
    let epoch = store.page(&pair(), all()).await.unwrap().epoch;
    store.close().await;
    let bytes = |journal: &Path| std::fs::read(journal).unwrap();
    let refused = |dir: &Path| EmbeddedStore::open(dir, Left::Anyhow, false).unwrap_err().to_string();
    let damage = |dir: &Path, at: usize| {
        let journal = last_journal(dir);
        let file = std::fs::File::options().write(true).open(&journal).unwrap();
        file.write_all_at(b"?", u64::try_from(at).unwrap()).unwrap();
        (bytes(&journal), journal)
    };

    // In the third of six: the fifth and the sixth were begun when it was synced.
    let damaged = copy(dir.path());
    let (content, journal) = damage(damaged.path(), ends[1] + 40);
    let why = refused(damaged.path());
    let place = format!("0.jnl is damaged at byte {}, and 2 or more", ends[1]);
    assert!(why.contains(&place) && why.contains("--restored"), "{why}");
    assert!(bytes(&journal) == content, "nothing was touched");
    // As the error says.
    std::fs::write(&journal, &content[..ends[1]]).unwrap();
    let store = EmbeddedStore::open(damaged.path(), Left::Anyhow, true).unwrap().0;
    assert_eq!(seqs(&store).await, [1, 2]);
    let again = store.append(&[&long(2)]).await.outcomes.remove(0).unwrap();
    assert!(matches!(again, Appended::Stored { seq: 3, epoch: raised } if raised > epoch), "{again:?}");
    store.close().await;

    // In the last one nobody can tell.
    let torn = copy(dir.path());
    damage(torn.path(), ends[4] + 40);
    let store = open(torn.path());
    assert_eq!(seqs(&store).await, [1, 2, 3, 4, 5]);
    store.close().await;

    // A journal that is not the last one was synced to its end.
    let sealed = copy(dir.path());
    damage(sealed.path(), ends[4] + 40);
    std::fs::write(last_journal(sealed.path()).with_file_name("1.jnl"), []).unwrap();
    let why = refused(sealed.path());
    assert!(why.contains(&format!("0.jnl is damaged at byte {}", ends[4])), "{why}");
}

#[tokio::test]
async fn all_that_the_engine_writes_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let team = ConversationId::parse("g:team").unwrap();
    store.create(&team, &[(user(1), Role::Owner), (user(2), Role::Member)], History::Full).await.unwrap();
    for id in ["a", "b", "c"] {
        append(&store, &team, id).await;
    }
    append_all(&store, 0..20).await;
    advance(&store, 9).await;
    store.delete(&team).await.unwrap();
    let one = Keep { age_ms: None, count: Some(1) };
    store.trim(unix_ms(), &Retention { p2p: one, group: one }, "").await.unwrap();
    let check = || {
        for (_, path) in journals(&engine::place(dir.path())).unwrap() {
            let journal = Journal::open(path).unwrap();
            let (end, number) = journal.end().unwrap();
            assert!(end > 0 && number > 0);
            assert_eq!(journal.rest(end).unwrap(), [0; 0]);
        }
    };
    check();
    store.prepare_close().await.unwrap();
    append_all(&store, 20..25).await;
    check();
    store.close().await;
    check();
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_begun_anew() {
    for mark in [None, Some("")] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine::place(dir.path());
        std::fs::create_dir_all(store.join("keyspaces")).unwrap();
        std::fs::write(store.join("lock"), []).unwrap();
        std::fs::File::create(store.join("0.jnl")).unwrap().set_len(64 << 20).unwrap();
        if let Some(mark) = mark {
            std::fs::write(store.join("version"), mark).unwrap();
        }
        let store = open(dir.path());
        append_all(&store, 0..1).await;
        store.close().await;
        assert_eq!(seqs(&open(dir.path())).await, [1]);
    }
}
